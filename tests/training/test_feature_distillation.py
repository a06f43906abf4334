"""Features are matched sample by sample, reach the backbone, and leave nothing behind on the network."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from lensmith.errors import ModelError
from lensmith.training.feature_distillation import FeatureDistillation, feature_hook, feature_width
from lensmith.training.loss import Classification, Distillation
from lensmith.training.microbatch.microbatch import MicroBatcher

CPU = torch.device("cpu")
N, S = 8, 64


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(name: str, seed: int = 0) -> Any:
    """Float (N, 3, S, S) → logits (N, 4), with BatchNorm as it will be served."""
    torch.manual_seed(seed)
    sized = {"img_size": S} if "vit" in name else {}
    return timm.create_model(name, num_classes=4, **sized).eval()


def distillation(student: Any, teacher: Any, weight: float = 0.5) -> Distillation:
    own, theirs = (feature_width(model, model.get_classifier(), S) for model in (student, teacher))
    matching = FeatureDistillation(teacher.get_classifier(), own, theirs, weight, 0, CPU)
    return Distillation(Classification(), teacher, 0.9 - weight, 2.0, matching)


def gradients(student: Any, task: Distillation, **how: Any) -> dict[str, Tensor]:
    """Of the loss over one batch, by parameter, as `MicroBatcher` gathers them."""
    micro = MicroBatcher(student, **how)

    def loss(pictures: Tensor, targets: Tensor) -> Tensor:
        with feature_hook(student.get_classifier()) as seen:
            logits = student(pictures)
        return task.loss(logits, targets, pictures, seen[-1])

    pictures = torch.rand(N, 3, S, S, generator=torch.Generator().manual_seed(1))
    outcome = micro.backward((pictures, torch.arange(N) % 4), loss)
    if "max_chunk" in how:
        assert outcome.chunks == -(-N // how["max_chunk"])
    found = {name: one.grad for name, one in student.named_parameters() if one.grad is not None}
    student.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_chunks_and_activation_checkpointing_change_no_gradient(name: str) -> None:
    student, teacher = network(name), network("test_resnet", seed=1)
    task = distillation(student, teacher)
    whole = gradients(student, task)
    for how in ({"max_chunk": 3}, {"max_chunk": 1}, {"max_chunk": 4, "checkpointing": "always"}):
        cut = gradients(student, task, **how)
        assert cut.keys() == whole.keys()
        for parameter, value in whole.items():
            assert torch.allclose(cut[parameter], value, rtol=1e-3, atol=1e-4 * float(value.abs().max())), parameter
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_its_gradient_reaches_the_backbone_and_not_the_head() -> None:
    student, teacher = network("test_byobnet"), network("test_resnet", seed=1)
    task = distillation(student, teacher)
    pictures = torch.rand(N, 3, S, S)
    with feature_hook(student.get_classifier()) as own, feature_hook(teacher.get_classifier()) as theirs:
        student(pictures)
        teacher(pictures)
    assert task.feature_loss is not None
    task.feature_loss.distance(own[-1], theirs[-1].detach()).sum().backward()  # type: ignore[no-untyped-call]
    head = {id(parameter) for parameter in student.get_classifier().parameters()}
    reached = {id(one) for one in student.parameters() if one.grad is not None and bool(one.grad.abs().max() > 0)}
    assert id(next(student.parameters())) in reached
    assert not head & reached


@pytest.mark.parametrize(("own", "theirs"), [(48, 12), (12, 48), (32, 32), (1, 64), (64, 1), (2, 3)])
def test_networks_of_any_widths_can_be_matched(own: int, theirs: int) -> None:
    matching = FeatureDistillation(nn.Linear(theirs, 2), own, theirs, 0.5, 0, CPU)
    apart = matching.distance(drawn(N, own), drawn(N, theirs, seed=1))
    assert bool(((apart > -1e-6) & (apart < 2 + 1e-6)).all())
    assert torch.isfinite(matching.distance(torch.zeros(N, own), drawn(N, theirs))).all()


@pytest.mark.parametrize("kind", [torch.square, torch.tanh], ids=lambda kind: kind.__name__)
def test_features_that_are_never_negative_can_follow_a_teacher_as_well(kind: Callable[[Tensor], Tensor]) -> None:
    matching = FeatureDistillation(nn.Linear(64, 2), 48, 64, 0.5, 0, CPU)
    theirs, own = drawn(N, 64), drawn(N, 48, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([own], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        matching.distance(kind(own), theirs).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(matching.distance(kind(own), theirs).detach().max()) < 0.02


def test_the_seed_alone_says_what_is_compared() -> None:
    own, theirs = drawn(N, 20), drawn(N, 30, seed=1)
    head = nn.Linear(30, 2)
    before = torch.random.get_rng_state()
    first, again, other = (
        FeatureDistillation(head, 20, 30, 0.5, seed, CPU).distance(own, theirs) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_looking_leaves_nothing_on_the_network() -> None:
    model = network("test_resnet")
    head = model.get_classifier()
    with feature_hook(head) as seen:
        model(torch.rand(2, 3, S, S))
    assert not head._forward_pre_hooks
    assert len(seen) == 1
    assert seen[0].shape == (2, head.in_features)
    with pytest.raises(ZeroDivisionError), feature_hook(head):
        raise ZeroDivisionError
    assert not head._forward_pre_hooks


class Places(nn.Module):
    """A head that answers at each place; the mean of its answers is the network's."""

    def __init__(self, head: nn.Module, calls: bool = True) -> None:
        super().__init__()
        self.head, self.calls = head, calls

    def forward(self, pictures: Tensor) -> Tensor:
        if isinstance(self.head, nn.Linear):
            pictures = pictures.permute(0, 2, 3, 1)
        answers: Tensor = self.head(pictures) if self.calls else pictures
        return answers.flatten(1).mean(1)


@pytest.mark.parametrize("head", [nn.Conv2d(3, 5, 1), nn.Linear(3, 5)], ids=["convolution", "linear"])
def test_where_a_head_answers_to_each_place_features_are_the_mean(head: nn.Module) -> None:
    pictures = torch.rand(2, 3, S, S)
    with feature_hook(head) as seen:
        Places(head)(pictures)
    assert torch.allclose(seen[0], pictures.mean((2, 3)), atol=1e-6)


def test_a_network_that_does_not_call_its_head_is_refused() -> None:
    with pytest.raises(ModelError, match="does not call its head"):
        feature_width(Places(nn.Linear(3, 5), calls=False), nn.Linear(3, 5), S)


@pytest.mark.parametrize("training", [True, False])
def test_a_width_is_found_without_a_trace(training: bool) -> None:
    model = network("test_resnet").train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert feature_width(model, model.get_classifier(), S) == model.num_features
    assert {module.training for module in model.modules()} == {training}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)
