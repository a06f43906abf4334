"""Losses are sums that can be cut into chunks, and what they come to is PyTorch's own."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from lensmith.config import TrainSettings
from lensmith.errors import RunError, SettingsError
from lensmith.image import pixels, preprocess
from lensmith.train.folder import checkpoint
from lensmith.train.folder.run import Run
from lensmith.train.network import backbone
from lensmith.train.task import Classification, Distillation, Task, Teacher, task_of

CPU = torch.device("cpu")
N, C = 12, 4
LABELS = ("blue", "green", "red")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS, INTEGERS, PICTURES = drawn(N, C), torch.arange(N) % 3, torch.rand(N, 3, 8, 8)
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
    return [plain, Distillation(plain, Linear(), weight=0.3, temperature=3.0)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_the_sum_over_the_weights_is_torch_s_weighted_mean(smoothing: float, class_weights: Tensor | None) -> None:
    task = Classification(smoothing, class_weights)
    loss = task.loss(LOGITS, INTEGERS, PICTURES) / task.weights(INTEGERS).sum()
    assert torch.allclose(loss, cross_entropy(LOGITS, INTEGERS, class_weights, label_smoothing=smoothing))


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_mixed_targets_of_one_class_each_count_as_labels_do(class_weights: Tensor | None) -> None:
    for task in tasks(class_weights):
        one_hot = nn.functional.one_hot(INTEGERS, C).float()
        assert torch.allclose(task.weights(one_hot), task.weights(INTEGERS))
        assert torch.allclose(task.loss(LOGITS, one_hot, PICTURES), task.loss(LOGITS, INTEGERS, PICTURES))
        assert task.weights(SHARES).dtype == torch.float32


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("targets", [INTEGERS, SHARES], ids=["labels", "shares"])
def test_chunks_add_up_to_the_batch(class_weights: Tensor | None, targets: Tensor) -> None:
    for task in tasks(class_weights):
        pieces = [slice(0, 5), slice(5, 6), slice(6, N)]
        losses = [task.loss(LOGITS[piece], targets[piece], PICTURES[piece]) for piece in pieces]
        assert torch.allclose(sum(losses, torch.zeros(())), task.loss(LOGITS, targets, PICTURES), rtol=1e-5)


def test_distillation_is_hinton_s() -> None:
    teacher = Linear()
    task = Distillation(Classification(0.1), teacher, weight=0.3, temperature=3.0)
    with torch.no_grad():
        answers = softmax(teacher(PICTURES) / 3, dim=1)
    apart = 9 * kl_div(log_softmax(LOGITS / 3, dim=1), answers, reduction="batchmean")
    expected = 0.7 * cross_entropy(LOGITS, INTEGERS, label_smoothing=0.1) + 0.3 * apart
    assert torch.allclose(task.loss(LOGITS, INTEGERS, PICTURES) / N, expected)


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


def of_run(path: Path, size: int) -> tuple[Tensor, Tensor]:
    """Some of a run's images in 0..1 at `size`, and what its best network answers to them at its own size."""
    run = Run.open(path)
    state = checkpoint.load(run.best)["model"]
    model = backbone.rebuild(run.settings, len(run.images.labels), state)
    encoded = [run.images.file(sample).read_bytes() for sample in run.images.part("val")]
    pictures = [torch.tensor(pixels(one, replace(run.preprocessing, image_size=size))) for one in encoded]
    inputs = torch.stack([torch.from_numpy(preprocess(one, run.preprocessing)) for one in encoded])
    with torch.no_grad():
        return torch.stack(pictures).permute(0, 3, 1, 2) / 255, model(inputs)


def test_a_teacher_answers_as_its_run_s_best_epoch_would(trained: Path) -> None:
    pictures, answers = of_run(trained, 32)
    teacher = Teacher.of(trained, LABELS)
    with torch.no_grad():
        assert torch.allclose(teacher(pictures), answers, atol=1e-4)
    assert not any(module.training for module in teacher.model.modules())


def test_pictures_of_another_size_are_brought_to_the_teacher_s(trained: Path) -> None:
    pictures, answers = of_run(trained, 64)
    with torch.no_grad():
        assert torch.equal(Teacher.of(trained, LABELS)(pictures).argmax(1), answers.argmax(1))


def test_the_settings_name_the_teacher_and_its_share(trained: Path) -> None:
    chosen = settings(teacher=trained, teacher_weight=1.0, teacher_temperature=4.0, label_smoothing=0.0)
    task = task_of(chosen, LABELS, Counter(), CPU)
    assert isinstance(task, Distillation)
    pictures, answers = of_run(trained, 32)
    assert float(task.loss(answers, torch.zeros(len(answers), dtype=torch.int64), pictures)) == pytest.approx(
        0, abs=1e-4
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("blue", "green"), "has besides red"),
        (("blue", "green", "red", "teal"), "lacks teal"),
        (("blue", "green", "pink"), "lacks pink and has besides red"),
        (("red", "green", "blue"), "in another order"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_with_the_difference(
    trained: Path, labels: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        Teacher.of(trained, labels)


def test_a_teacher_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run folder"):
        Teacher.of(tmp_path / "nowhere", LABELS)
