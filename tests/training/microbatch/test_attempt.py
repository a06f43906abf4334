"""Memory that runs out anywhere in a step leaves no trace: not in weights, statistics or random numbers, nor pinned."""

import copy
import itertools
import random
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.microbatch import MicroBatcher, StepResult

pytestmark = pytest.mark.usefixtures("_one_thread", "_little_to_collect")

IMAGES, STEPS = 12, 10

ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    lambda: MemoryError(),
    lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 9437184 bytes. Error code 12 (Cannot allocate memory)"
    ),
]


class Point(torch.autograd.Function):
    """Nothing, but that `Trap` is told of it on the way forward and on the way back."""

    @staticmethod
    def forward(context: Any, x: Tensor, trap: "Trap") -> Tensor:
        context.trap = trap
        trap.passed()
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        context.trap.passed()
        return gradients[0], None


class Trap:
    """Raises when the forward and backward passes of some layers come by the nth time since it was set."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self.count, self.at = 0, list[int]()
        self.error: Callable[[], Exception] = MemoryError
        for layer in layers:
            layer.register_forward_hook(lambda module, given, answer: Point.apply(answer, self))

    def set(self, points: Sequence[int], error: Callable[[], Exception] = MemoryError) -> None:
        """At the first of `points`, and in the tries after it at the next ones, counted anew."""
        self.count, self.at, self.error = 0, list(points), error

    def passed(self) -> None:
        self.count += 1
        if self.at and self.count == self.at[0]:
            self.count = 0
            del self.at[0]
            raise self.error()


def network(dropout: float) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.Dropout(dropout),
        nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=None), nn.GELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 4),
    )  # fmt: skip


POINTS = 22
"""Of one chunk: each layer, there and back."""


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(IMAGES, 3, 12, 12, generator=generator), torch.randint(4, (IMAGES,), generator=generator)


class Training:
    """A network, and steps of it that note how many images went through at once."""

    def __init__(self, dropout: float = 0.3, norms_learn: bool = True) -> None:
        self.model = network(dropout)
        for module in self.model if not norms_learn else ():
            module.train(not isinstance(module, nn.BatchNorm2d))
        self.trap, self.micro = Trap(self.model), MicroBatcher(self.model, tile=4)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-2)
        self.at_once: list[int] = []
        self.outcomes: list[StepResult] = []
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        noise = random.random() + np.random.rand()  # whoever draws from these, draws the same again
        return F.cross_entropy(self.model(x) * (1 + 0.1 * noise), y, reduction="sum")

    def step(self, number: int, at_once: int | None = None) -> StepResult:
        """One of them, with as many images at once as memory is known to take, or with `at_once`."""
        self.micro.scheduler.limit = at_once or self.micro.scheduler.limit
        sizes: list[int] = []
        done = self.micro.backward(
            batch(number), self.loss, claim=lambda: sizes.append(self.micro.scheduler.chunk_size(IMAGES))
        )
        self.at_once.append(sizes[-1])
        self.outcomes.append(done)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return done

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()),
            "losses": [done.loss for done in self.outcomes],
        }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_ran_out_at_random_points_ends_as_one_that_did_not(
    seed: int, equal: Callable[[Any, Any], bool]
) -> None:
    chance = random.Random(seed)
    struck = Training()
    retries = 0
    for number in range(STEPS):
        points = [chance.randint(1, POINTS) for _ in range(chance.choice([0, 0, 1, 2]))] if retries < 3 else []
        struck.trap.set(points, chance.choice(ERRORS))
        retries += struck.step(number).retries
        assert not struck.trap.at
    assert retries >= 1
    state = copy.deepcopy(struck.state())  # the generators are those of the process
    calm = Training()
    for number in range(STEPS):
        calm.step(number, at_once=struck.at_once[number])
    assert [done.retries for done in calm.outcomes] == [0] * STEPS
    assert equal(calm.state(), state)


@pytest.mark.parametrize(("point", "error"), zip(range(1, POINTS + 1), itertools.cycle(ERRORS), strict=False))
def test_wherever_it_runs_out_the_step_is_the_same(
    point: int, error: Callable[[], Exception], equal: Callable[[Any, Any], bool]
) -> None:
    struck = Training()
    struck.trap.set([point, point], error)
    assert struck.step(0).retries == 2
    state = copy.deepcopy(struck.state())
    calm = Training()
    calm.step(0, at_once=struck.at_once[0])
    assert equal(calm.state(), state)


@pytest.mark.parametrize("norms_learn", [False, True])
def test_across_numbers_of_chunks_the_weights_are_the_same_but_for_rounding(norms_learn: bool) -> None:
    ended = []
    for struck_at in (None, 1):
        training = Training(dropout=0.0, norms_learn=norms_learn)
        model = training.model
        training.optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        training.loss = lambda x, y, model=model: F.cross_entropy(model(x), y, reduction="sum")  # type: ignore[method-assign]
        for number in range(STEPS):
            training.trap.set([17] if number == struck_at else [])
            assert training.step(number).exact
        ended.append(torch.cat([p.detach().flatten() for p in [*model.parameters(), *model.buffers()]]))
        assert training.outcomes[3].chunks == (1 if struck_at is None else 3 if norms_learn else 2)
    whole, struck = ended
    assert 0 < (struck - whole).norm() / whole.norm() < 1e-5


def test_gradients_of_before_survive_and_are_added_to(equal: Callable[[Any, Any], bool]) -> None:
    found = []
    for point in (20, None):
        training = Training()
        training.micro.backward(batch(0), training.loss)
        places = [parameter.grad for parameter in training.model.parameters()]
        training.trap.set([point] if point else [])
        training.micro.scheduler.limit = None if point else 6
        assert training.micro.backward(batch(1), training.loss).retries == bool(point)
        assert all(p.grad is place for p, place in zip(training.model.parameters(), places, strict=True))
        found.append(places)
    assert equal(*found)


@pytest.mark.parametrize("error", ERRORS)
def test_nothing_of_a_failed_try_is_left_when_the_next_begins(error: Callable[[], Exception]) -> None:
    training = Training(dropout=0.0)
    kept: list[weakref.ref[Tensor]] = []
    begun = 0

    def loss(x: Tensor, y: Tensor) -> Tensor:
        nonlocal begun
        if len(x) != begun:  # another try, with smaller chunks
            begun = len(x)
            assert all(reference() is None for reference in kept)
        hidden = training.model[0](x)
        logits = training.model[1:](hidden)
        kept.extend([weakref.ref(hidden), weakref.ref(logits)])
        return F.cross_entropy(logits, y, reduction="sum")

    training.trap.set([POINTS, POINTS // 2, 40], error)
    assert training.micro.backward(batch(0), loss).retries == 3
    assert len(kept) > 8
    assert all(reference() is None for reference in kept)


class Refused(BaseException):
    """Not an Exception, as a KeyboardInterrupt is."""


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, Refused])
@pytest.mark.parametrize("point", [3, POINTS - 3])
def test_another_error_comes_through_as_it_is_with_everything_undone(
    kind: type[Exception], point: int, equal: Callable[[Any, Any], bool]
) -> None:
    training, error = Training(), kind("something else")
    training.step(0)
    training.micro.backward(batch(1), training.loss)
    before = copy.deepcopy(training.state())
    gradients = [parameter.grad for parameter in training.model.parameters()]
    values = copy.deepcopy(gradients)

    def refuse() -> Exception:
        return error

    training.trap.set([point], refuse)
    with pytest.raises(kind) as caught:
        training.step(1)
    assert caught.value is error
    assert equal(training.state(), before)
    assert all(p.grad is kept for p, kept in zip(training.model.parameters(), gradients, strict=True))
    assert equal(gradients, values)
    assert training.micro.scheduler.chunks(IMAGES) == 1


def test_memory_that_runs_out_after_the_chunks_undoes_them_too(equal: Callable[[Any, Any], bool]) -> None:
    struck = Training()
    left = [MemoryError(), None]

    def claim() -> None:
        if problem := left.pop(0):
            raise problem

    struck.micro.backward(batch(0), struck.loss, claim=claim)
    calm = Training()
    calm.micro.scheduler.limit = 6
    calm.micro.backward(batch(0), calm.loss)
    for parameter, other in zip(struck.model.parameters(), calm.model.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)  # type: ignore[arg-type]
    assert equal(struck.model.state_dict(), calm.model.state_dict())


def test_a_vote_that_fails_undoes_the_step(equal: Callable[[Any, Any], bool]) -> None:
    training = Training()
    before = copy.deepcopy(training.state())

    def vote() -> StepVerdict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.micro.backward(batch(0), training.loss, vote=vote)
    assert equal(training.state(), before)
    assert all(parameter.grad is None for parameter in training.model.parameters())


@pytest.mark.parametrize("replaced", [False, True])
def test_buffers_of_any_layer_are_put_back(replaced: bool) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            if replaced:
                self.seen = self.seen + len(x)
            else:
                self.seen += len(x)
            return self.layer(x)  # type: ignore[no-any-return]

    model = Counts()
    place = model.seen
    left = [3, 0]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        answer = F.cross_entropy(model(x), y, reduction="sum")
        left[0] -= 1
        if left[0] == 0:
            raise MemoryError
        return answer

    micro = MicroBatcher(model)
    micro.scheduler.limit = 4
    micro.backward((torch.randn(12, 3), torch.zeros(12, dtype=torch.int64)), loss)
    assert micro.retries == 1
    assert int(model.seen) == 12
    assert replaced or model.seen is place


def test_checkpointing_that_comes_in_changes_nothing_also_where_computing_again_fails() -> None:
    torch.manual_seed(0)
    start = timm.create_model("test_resnet", num_classes=4)
    x, y = torch.randn(12, 3, 32, 32), torch.arange(12) % 4
    found = []
    for points in ([], [2, 2]):  # there and back; then there, and there again within backward
        model = copy.deepcopy(start)
        trap, micro = Trap([model.layer2[0].conv1]), MicroBatcher(model, tile=4)
        micro.scheduler.checkpoint_below = 12
        trap.set(points)
        done = micro.backward((x, y), lambda x, y, model=model: F.cross_entropy(model(x), y, reduction="sum"))
        assert (done.retries, done.checkpointing, done.chunks) == ((2, True, 3) if points else (0, False, 1))
        found.append([*(p.grad for p in model.parameters()), *model.buffers()])
    for first, second in zip(*found, strict=True):
        assert (first - second).double().norm() <= 1e-5 * first.double().norm() + 1e-6
