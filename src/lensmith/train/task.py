"""What a network learns from: the labels, or the labels and a teacher.

A task gives every sample a weight and a chunk of samples the sum of their losses. Sums over all chunks divided by the
batch's whole weight are the loss of the batch, however it was cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.errors import SettingsError
from lensmith.image import Preprocessing
from lensmith.train.folder import checkpoint
from lensmith.train.folder.run import Run
from lensmith.train.network import backbone
from lensmith.train.network.state_dict import some


class Task(Protocol):
    """What the step asks of a task. Targets are int64 (N,) or, where a batch was mixed, float32 (N, C)."""

    def weights(self, targets: Tensor) -> Tensor:
        """Float32 (N,): how much each sample counts."""

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor) -> Tensor:
        """The weighted sum of the samples' losses.

        Args:
            logits: float32 (N, C).
            targets: see above.
            pictures: float (N, 3, S, S) in 0..1, as the network saw them before normalisation.

        Returns:
            A scalar.
        """


class Classification:
    """Cross-entropy with label smoothing, weighted by class.

    Args:
        label_smoothing: share of the target that goes to all classes alike, 0..1.
        class_weights: float32 (C,) on the logits' device; None: all classes count alike.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def weights(self, targets: Tensor) -> Tensor:
        """A sample's weight is its class's; of a mixed one, its classes' by their shares."""
        if self.class_weights is None:
            return torch.ones(len(targets), device=targets.device)
        return targets @ self.class_weights if targets.is_floating_point() else self.class_weights[targets]

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor) -> Tensor:
        """Over the sum of weights it is what PyTorch calls the weighted mean."""
        return nn.functional.cross_entropy(
            logits, targets, self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )


class Distillation:
    """A task whose targets are mixed with a teacher's softened answers to the same pictures.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015: T² · KL(teacher ‖ student).

    Args:
        task: what is learnt from the labels.
        teacher: float (N, 3, S, S) in 0..1 → logits (N, C).
        weight: the teacher's share of the loss, 0..1.
        temperature: T > 0, by which both logits are divided.
    """

    def __init__(self, task: Task, teacher: nn.Module, weight: float, temperature: float) -> None:
        self.task, self.teacher, self.weight, self.temperature = task, teacher, weight, temperature

    def weights(self, targets: Tensor) -> Tensor:
        """Those of the task."""
        return self.task.weights(targets)

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor) -> Tensor:
        """The task's loss and the teacher's, each by its share."""
        with torch.no_grad():
            answers: Tensor = self.teacher(pictures)
        softened = nn.functional.log_softmax(answers.float() / self.temperature, dim=1)
        student = nn.functional.log_softmax(logits / self.temperature, dim=1)
        apart = nn.functional.kl_div(student, softened, reduction="none", log_target=True).sum(1)
        distilled = self.temperature**2 * (apart * self.weights(targets)).sum()
        return (1 - self.weight) * self.task.loss(logits, targets, pictures) + self.weight * distilled


class Teacher(nn.Module):
    """A trained network behind its own preprocessing, in evaluation mode for good.

    Args:
        model: float (N, 3, S, S) → logits (N, C).
        how: what it was trained with; pictures of another size are resampled to its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, how: Preprocessing) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self._size = (how.image_size, how.image_size)
        self._filter = how.interpolation
        self.register_buffer("mean", torch.tensor(how.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(how.std).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Float (N, 3, S, S) in 0..1 → logits (N, C)."""
        if pictures.shape[2:] != self._size:
            pictures = nn.functional.interpolate(pictures, self._size, mode=self._filter, antialias=True).clamp(0, 1)
        logits: Tensor = self.model((pictures - self.mean) / self.std)
        return logits

    @classmethod
    def of(cls, path: Path, labels: Sequence[str]) -> Teacher:
        """The network of a run's best epoch.

        Raises:
            RunError: no run, or none that has an epoch behind it.
            SettingsError: it was trained for other classes than `labels`.
        """
        run = Run.open(path)
        theirs = run.images.labels
        if tuple(labels) != theirs:
            lacks = [label for label in labels if label not in theirs]
            more = [label for label in theirs if label not in labels]
            parts = [f"{what} {some(names)}" for what, names in (("lacks", lacks), ("has besides", more)) if names]
            raise SettingsError(
                f"A teacher of the same {len(labels)} classes was expected in {path}.",
                f"It {' and '.join(parts) or 'has them in another order'}.",
                "Train the teacher on the same classes, or distil from another.",
            )
        weights = checkpoint.load(run.best, if_missing="Let the teacher finish an epoch first.")["model"]
        return cls(backbone.rebuild(run.settings, len(theirs), weights), run.preprocessing)


def task_of(settings: TrainSettings, labels: Sequence[str], counts: Mapping[int, int], device: torch.device) -> Task:
    """The task that the settings ask for.

    Args:
        settings: of the run.
        labels: of the classes, in order.
        counts: training images of each class by its number; none may be 0 where classes are balanced.
        device: where the logits will be.

    Raises:
        RunError: the teacher's run cannot be read.
        SettingsError: the teacher was trained for other classes.
    """
    balance = None
    if settings.class_weights == "balanced":
        images = torch.tensor([counts[number] for number in range(len(labels))], dtype=torch.float32)
        balance = (images.sum() / (len(labels) * images)).to(device)
    task = Classification(settings.label_smoothing, balance)
    if settings.teacher is None:
        return task
    teacher = Teacher.of(settings.teacher, labels).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Distillation(task, teacher, settings.teacher_weight, settings.teacher_temperature)
