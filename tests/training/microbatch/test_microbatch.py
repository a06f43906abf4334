"""The number of chunks changes neither gradients nor statistics, and what a batch means is plain PyTorch's."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.memory import TooLargeError
from lensmith.training.microbatch.microbatch import MicroBatcher, StepResult

pytestmark = pytest.mark.usefixtures("_one_thread")

IMAGES, CLASSES = 13, 5
WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5, 1.3])


def network(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
    return model


def vit() -> nn.Module:
    return network("test_vit", img_size=32)


def batch(images: int = IMAGES, size: int = 32, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 3, size, size, generator=generator)
    return x, torch.randint(CLASSES, (images,), generator=generator)


def freeze_norms(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def sum_of(model: nn.Module, weights: Tensor | None = None, smoothing: float = 0.0) -> Callable[..., Tensor]:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, weight=weights, label_smoothing=smoothing, reduction="sum")

    return loss


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def apart(first: Tensor, second: Tensor) -> float:
    """Relative distance."""
    return float((first - second).norm() / second.norm())


def buffers(model: nn.Module) -> Tensor:
    return torch.cat([torch.zeros(1).double(), *(buffer.double().flatten() for buffer in model.buffers())])


def backward(model: nn.Module, limit: int | None = None, images: int = IMAGES, **options: Any) -> StepResult:
    """One step as if `limit` images were known to fit at once."""
    micro = MicroBatcher(model, **options)
    micro.scheduler.limit = limit
    model.zero_grad()
    return micro.backward(batch(images), sum_of(model))


FROZEN: dict[str, Callable[[], nn.Module]] = {
    "test_vit": vit,
    "test_resnet": lambda: freeze_norms(network("test_resnet").train()),
    "test_efficientnet": lambda: freeze_norms(network("test_efficientnet").train()),
}


@pytest.mark.parametrize("name", FROZEN)
@pytest.mark.parametrize("checkpointing", ["never", "always"])
def test_any_number_of_chunks_gives_the_whole_batchs_gradients(name: str, checkpointing: str) -> None:
    model = FROZEN[name]()
    x, y = batch()
    mean = F.cross_entropy(model(x), y)
    mean.backward()
    whole, before = gradients(model), buffers(model)
    for limit in (None, 7, 3, 1):
        done = backward(model, limit, checkpointing=checkpointing)
        assert done.chunks == -(-IMAGES // (limit or IMAGES))
        assert done.checkpointing == (checkpointing == "always")
        assert apart(gradients(model), whole) < 1e-5
        assert float(done.loss) == pytest.approx(mean.item(), rel=1e-5)
        assert done.exact
        assert torch.equal(buffers(model), before)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("limit", [None, 4, 1])
def test_weighted_losses_are_divided_by_the_whole_batchs_weights(limit: int | None, smoothing: float) -> None:
    model, (x, y) = vit(), batch()
    loss = sum_of(model, WEIGHTS, smoothing)
    (loss(x, y) / WEIGHTS[y].sum()).backward()
    whole = gradients(model)
    model.zero_grad()
    micro = MicroBatcher(model)
    micro.scheduler.limit = limit
    done = micro.backward((x, y), loss, weight=float(WEIGHTS[y].sum()))
    assert apart(gradients(model), whole) < 1e-5
    assert done.weight == pytest.approx(float(WEIGHTS[y].sum()))
    if not smoothing:  # with it, PyTorch's own mean divides by the same
        assert float(done.loss) == pytest.approx(F.cross_entropy(model(x), y, weight=WEIGHTS).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("checkpointing", ["never", "always"])
def test_trained_batch_norm_gives_the_same_down_to_a_virtual_batch(name: str, checkpointing: str) -> None:
    start = network(name).train()
    whole = copy.deepcopy(start)
    assert backward(whole, tile=4, checkpointing="never").exact
    seen = {}
    for limit in (7, 4, 3, 1):
        model = copy.deepcopy(start)
        done = backward(model, limit, tile=4, checkpointing=checkpointing)
        near = apart(gradients(model), gradients(whole)) < 1e-5 and apart(buffers(model), buffers(whole)) < 1e-6
        seen[limit] = (done.exact, near)
        assert next(b for n, b in model.named_buffers() if n.endswith("batches_tracked")) == (0 if limit == 1 else 1)
    assert seen == {limit: (limit >= 4, limit >= 4) for limit in seen}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_virtual_batches_are_normalised_one_by_one(name: str) -> None:
    """A chunk of several virtual batches equals plain PyTorch on each of them alone."""
    model = network(name).train()
    plain, (x, y) = copy.deepcopy(model), batch(12)
    backward(model, images=12, tile=4)
    for part in range(0, 12, 4):
        (sum_of(plain)(x[part : part + 4], y[part : part + 4]) / 12).backward()
    assert apart(gradients(model), gradients(plain)) < 1e-5


@pytest.mark.parametrize("images", [3, 8, 15, 17])
def test_exact_means_that_virtual_batches_were_not_split(images: int) -> None:
    """Also where a piece is as large as a whole virtual batch: 15 images are virtual batches of 4, 4, 4 and 3."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES)).train()
    whole = copy.deepcopy(start)
    backward(whole, images=images, tile=4)
    for limit in range(1, images):
        model = copy.deepcopy(start)
        done = backward(model, limit, images=images, tile=4)
        assert done.exact == (apart(buffers(model), buffers(whole)) < 1e-6), limit


def test_a_virtual_batch_is_never_larger_than_the_largest_chunk() -> None:
    start = network("test_resnet").train()
    whole, halves = copy.deepcopy(start), copy.deepcopy(start)
    assert backward(whole, images=12, max_chunk=6).exact
    assert backward(halves, 4, images=12, max_chunk=6, tile=6).exact is False
    by_halves = copy.deepcopy(start)
    assert backward(by_halves, images=12, tile=6).chunks == 1
    assert apart(gradients(by_halves), gradients(whole)) < 1e-5


@pytest.mark.parametrize("make", [vit, lambda: network("test_resnet", zero_init_last=False)], ids=["vit", "resnet"])
def test_checkpointing_changes_no_gradient_where_the_first_stages_are_frozen(make: Callable[[], nn.Module]) -> None:
    model = make().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("blocks.1", "layer2", "layer3", "layer4", "fc", "head"))
    kept, again = copy.deepcopy(model), copy.deepcopy(model)
    backward(kept, 2, images=4, tile=2, checkpointing="never")
    backward(again, 2, images=4, tile=2, checkpointing="always")
    assert gradients(kept).numel() == gradients(again).numel() > 0
    assert apart(gradients(again), gradients(kept)) < 1e-5
    if list(kept.buffers()):
        assert apart(buffers(again), buffers(kept)) < 1e-6


def test_checkpointing_draws_the_same_random_numbers() -> None:
    model = network("test_vit", img_size=32, drop_rate=0.2, proj_drop_rate=0.2, drop_path_rate=0.2).train()
    found = []
    for checkpointing in ("never", "always"):
        torch.manual_seed(5)
        backward(model, 4, checkpointing=checkpointing)
        found.append((gradients(model), torch.get_rng_state()))
    assert apart(found[1][0], found[0][0]) < 1e-5
    assert torch.equal(found[0][1], found[1][1])


def test_a_network_without_checkpointing_is_noticed() -> None:
    with torch.device("meta"):
        without, able = network("vgg11"), vit()
    assert not MicroBatcher(without, checkpointing="auto").scheduler.can_checkpoint
    assert not MicroBatcher(without, checkpointing="always").scheduler.checkpointing
    assert MicroBatcher(able).scheduler.can_checkpoint
    assert not able.grad_checkpointing


def test_further_sums_of_the_loss_are_added_up() -> None:
    model, (x, y) = vit(), batch()

    def loss(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return F.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).sum()

    micro = MicroBatcher(model)
    right = int((model(x).argmax(1) == y).sum())
    for micro.scheduler.limit in (None, 5, 1):
        sums = micro.backward((x, y), loss).sums
        assert sums is not None
        assert int(sums) == right


def test_no_images_are_no_step() -> None:
    model = network("test_resnet").train()
    before = buffers(model)
    done = backward(model, images=0)
    assert (done.images, done.chunks, float(done.loss), done.sums) == (0, 0, 0.0, None)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(buffers(model), before)


def test_a_loss_that_is_no_number_leaves_nothing_behind() -> None:
    model = network("test_resnet").train()
    good, (x, y) = batch(), batch(seed=2)
    x[0, 0, 0, 0] = float("nan")
    micro = MicroBatcher(model, tile=4)
    micro.backward(good, sum_of(model))
    kept, before = gradients(model), buffers(model)
    done = micro.backward((x, y), sum_of(model), refuse_nan=True)
    assert done.verdict is StepVerdict.NOT_A_NUMBER
    assert torch.equal(gradients(model), kept)
    assert torch.equal(buffers(model), before)
    plain = copy.deepcopy(model)  # and the next step is as if nothing had been
    MicroBatcher(plain, tile=4).backward(good, sum_of(plain))
    assert micro.backward(good, sum_of(model), refuse_nan=True).verdict is StepVerdict.FINE
    assert torch.equal(buffers(model), buffers(plain))
    assert buffers(model).isfinite().all()


def test_layers_that_begin_to_train_are_noticed() -> None:
    model = freeze_norms(network("test_resnet").train())
    micro = MicroBatcher(model, tile=4)
    micro.scheduler.limit = 8
    assert micro.backward(batch(), sum_of(model)).chunks == 2
    before = buffers(model)
    model.train()
    assert micro.backward(batch(), sum_of(model)).chunks == 2
    assert apart(buffers(model), before) > 1e-3
    micro.scheduler.limit = 3
    assert not micro.backward(batch(), sum_of(model)).exact


@pytest.mark.usefixtures("_little_to_collect")
def test_one_image_that_does_not_fit_is_an_error() -> None:
    model = vit()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if len(x) > 2:
            raise MemoryError("no room")
        return sum_of(model)(x, y)

    micro = MicroBatcher(model, min_chunk=3)
    with pytest.raises(TooLargeError, match="3 of 13 images at once"):
        micro.backward(batch(), loss)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert micro.retries == 5  # at 13, 13 with checkpointing, 7, 4 and 3


@pytest.mark.parametrize("limit", [None, 5, 1])
def test_inference_in_chunks_is_that_of_the_whole(limit: int | None) -> None:
    model, (x, _) = network("test_resnet").eval(), batch()
    micro = MicroBatcher(model)
    micro.inference_scheduler.limit = limit
    answers = micro.infer(x)
    torch.testing.assert_close(answers, model(x), rtol=1e-5, atol=1e-6)
    assert not answers.requires_grad


def test_freed_memory_is_returned_only_while_it_is_not_known_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Returning freed memory costs time, so a run that never runs out does it in the first step of each phase."""
    calls: list[str] = []
    monkeypatch.setattr(
        malloc, "return_freed_memory", lambda ran_out=False: calls.append("ran out" if ran_out else "return")
    )
    monkeypatch.setattr(malloc, "retain_freed_memory", lambda: calls.append("retain"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))
    micro = MicroBatcher(model)
    left: list[Exception] = []

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if left:
            raise left.pop()
        return sum_of(model)(x, y)

    for _ in range(2):
        for _ in range(3):
            micro.backward(batch(), loss)
        micro.restart()
    assert calls == ["return", "retain"] * 2
    calls.clear()
    left.append(MemoryError())
    micro.backward(batch(), loss)
    assert calls == ["return", "ran out", "retain"]  # which then has no effect
