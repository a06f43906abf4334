"""Losses are sums that can be cut into chunks, and what they come to is PyTorch's own."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from lensmith.config import TrainSettings
from lensmith.training.feature_distillation import FeatureDistillation
from lensmith.training.loss import Classification, Distillation, Task, task_of

CPU = torch.device("cpu")
N, C = 12, 4
LABELS = ("blue", "green", "red")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS, INTEGERS, PICTURES = drawn(N, C), torch.arange(N) % 3, torch.rand(N, 3, 8, 8)
FEATURES = drawn(N, 9, seed=2)
SHARES = softmax(drawn(N, C, seed=1), dim=1)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 3.0])


class Linear(nn.Module):
    """A teacher that looks at the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, C)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(pictures.mean((2, 3)))
        return logits


def tasks(class_weights: Tensor | None) -> list[Task]:
    plain = Classification(0.1, class_weights)
    teacher = Linear()
    matching = FeatureDistillation(teacher.head, FEATURES.shape[1], 3, 0.25, 0, CPU)
    return [plain, Distillation(plain, teacher, 0.3, 3.0), Distillation(plain, teacher, 0.3, 3.0, matching)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_the_sum_over_the_weights_is_torch_s_weighted_mean(smoothing: float, class_weights: Tensor | None) -> None:
    task = Classification(smoothing, class_weights)
    loss = task.loss(LOGITS, INTEGERS, PICTURES) / task.weights(INTEGERS).sum()
    assert torch.allclose(loss, cross_entropy(LOGITS, INTEGERS, class_weights, label_smoothing=smoothing))


def test_class_weights_follow_the_numbers_of_images_that_are_left() -> None:
    for task in tasks(WEIGHTS):
        task.recount(Counter({0: 4, 1: 1, 3: 4}))
        assert torch.allclose(task.weights(torch.arange(C)), torch.tensor([0.75, 3.0, 0.0, 0.75]))
    for task in tasks(None):
        task.recount(Counter({0: 4, 1: 1}))
        assert task.weights(torch.arange(C)).tolist() == [1.0] * C


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_mixed_targets_of_one_class_each_count_as_labels_do(class_weights: Tensor | None) -> None:
    for task in tasks(class_weights):
        one_hot = nn.functional.one_hot(INTEGERS, C).float()
        assert torch.allclose(task.weights(one_hot), task.weights(INTEGERS))
        losses = [task.loss(LOGITS, targets, PICTURES, FEATURES) for targets in (one_hot, INTEGERS)]
        assert torch.allclose(*losses)
        assert task.weights(SHARES).dtype == torch.float32


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("targets", [INTEGERS, SHARES], ids=["labels", "shares"])
def test_chunks_add_up_to_the_batch(class_weights: Tensor | None, targets: Tensor) -> None:
    for task in tasks(class_weights):
        pieces = [slice(0, 5), slice(5, 6), slice(6, N)]
        batch = (LOGITS, targets, PICTURES, FEATURES)
        losses = [task.loss(*(tensor[piece] for tensor in batch)) for piece in pieces]
        assert torch.allclose(sum(losses, torch.zeros(())), task.loss(*batch), rtol=1e-5)


def test_distillation_is_hinton_s() -> None:
    teacher = Linear()
    task = Distillation(Classification(0.1), teacher, weight=0.3, temperature=3.0)
    with torch.no_grad():
        answers = softmax(teacher(PICTURES) / 3, dim=1)
    apart = 9 * kl_div(log_softmax(LOGITS / 3, dim=1), answers, reduction="batchmean")
    expected = 0.7 * cross_entropy(LOGITS, INTEGERS, label_smoothing=0.1) + 0.3 * apart
    assert torch.allclose(task.loss(LOGITS, INTEGERS, PICTURES) / N, expected)


def test_labels_answers_and_features_have_their_shares_of_the_loss() -> None:
    plain, answering, matching = tasks(WEIGHTS)
    assert [task.wants_features for task in (plain, answering, matching)] == [False, False, True]
    assert isinstance(answering, Distillation)
    assert isinstance(matching, Distillation)
    assert matching.feature_loss is not None
    labelled, answered = (task.loss(LOGITS, INTEGERS, PICTURES) for task in (plain, answering))
    apart = matching.feature_loss.distance(FEATURES, PICTURES.mean((2, 3)))
    expected = answered - 0.25 * labelled + 0.25 * (apart * WEIGHTS[INTEGERS]).sum()
    assert torch.allclose(matching.loss(LOGITS, INTEGERS, PICTURES, FEATURES), expected)


def test_a_student_that_answers_as_its_teacher_has_nothing_left_to_learn_from_it() -> None:
    teacher = Linear()
    logits = teacher(PICTURES).detach().requires_grad_()
    loss = Distillation(Classification(), teacher, weight=1.0, temperature=2.0).loss(logits, INTEGERS, PICTURES)
    loss.backward()  # type: ignore[no-untyped-call]
    assert abs(loss.item()) < 1e-4
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-5
    assert all(parameter.grad is None for parameter in teacher.parameters())


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({"data": "photos", **changes})


def test_balanced_weights_make_every_class_count_alike() -> None:
    counts = Counter({0: 90, 1: 9, 2: 1})
    task = task_of(settings(class_weights="balanced", label_smoothing=0.2), LABELS, counts, CPU)
    assert isinstance(task, Classification)
    assert task.label_smoothing == 0.2
    whole = [counts[label] * float(task.weights(torch.tensor([label]))) for label in range(3)]
    assert whole == pytest.approx([100 / 3] * 3)
    plain = task_of(settings(), LABELS, counts, CPU)
    assert plain.weights(torch.tensor([0, 1, 2])).tolist() == [1, 1, 1]
