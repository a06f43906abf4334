"""What a network learns from: the labels, or the labels and a teacher.

A task gives every sample a weight and a chunk of samples the sum of their losses. Sums over all chunks divided by the
batch's whole weight are the loss of the batch, however it was cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.training.feature_distillation import Matching, tapped, width
from lensmith.training.models.backbone import Network
from lensmith.training.precision import autocast
from lensmith.training.teacher import Teacher


class Task(Protocol):
    """What the step asks of a task. Targets are int64 (N,) or, where a batch was mixed, float32 (N, C).

    Attributes:
        precision: of the step, which a task's own networks may compute in, too.
    """

    precision: str

    @property
    def wants_features(self) -> bool:
        """Whether `loss` needs what the network's head is given."""

    def weights(self, targets: Tensor) -> Tensor:
        """Float32 (N,): how much each sample counts."""

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor, features: Tensor | None = None) -> Tensor:
        """The weighted sum of the samples' losses.

        Args:
            logits: float32 (N, C).
            targets: see above.
            pictures: float (N, 3, S, S) in 0..1, as the network saw them before normalisation.
            features: float32 (N, F), see `matching.tapped`; where they are wanted.

        Returns:
            A scalar.
        """


class Classification:
    """Cross-entropy with label smoothing, weighted by class.

    Args:
        label_smoothing: share of the target that goes to all classes alike, 0..1.
        class_weights: float32 (C,) on the logits' device; None: all classes count alike.
    """

    wants_features = False
    precision = "fp32"

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def weights(self, targets: Tensor) -> Tensor:
        """A sample's weight is its class's; of a mixed one, its classes' by their shares."""
        if self.class_weights is None:
            return torch.ones(len(targets), device=targets.device)
        return targets @ self.class_weights if targets.is_floating_point() else self.class_weights[targets]

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor, features: Tensor | None = None) -> Tensor:
        """Over the sum of weights it is what PyTorch calls the weighted mean."""
        return nn.functional.cross_entropy(
            logits, targets, self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )


class Distillation:
    """A task whose loss is mixed with how far the network is from a teacher, in its answers and in its features.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015: T² · KL(teacher ‖ student).

    Args:
        task: what is learnt from the labels, by the share that is left.
        teacher: float (N, 3, S, S) in 0..1 → logits (N, C).
        weight: share of the teacher's softened answers in the loss, 0..1.
        temperature: T > 0, by which both logits are divided.
        matching: of features, which has a share of its own; None: answers alone.
    """

    precision = "fp32"

    def __init__(
        self, task: Task, teacher: nn.Module, weight: float, temperature: float, matching: Matching | None = None
    ) -> None:
        self.task, self.teacher, self.weight, self.temperature = task, teacher, weight, temperature
        self.matching = matching

    @property
    def wants_features(self) -> bool:
        """Where they are matched."""
        return self.matching is not None

    def weights(self, targets: Tensor) -> Tensor:
        """Those of the task."""
        return self.task.weights(targets)

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor, features: Tensor | None = None) -> Tensor:
        """The task's loss and the teacher's, each by its share."""
        # In float16 a network that was not trained in it may overflow, and nothing would scale it down.
        half = autocast(pictures.device, "bf16" if self.precision == "bf16" else "fp32")
        with torch.no_grad(), half, tapped(self.matching.head if self.matching else None) as seen:
            answers: Tensor = self.teacher(pictures)
        softened = nn.functional.log_softmax(answers.float() / self.temperature, dim=1)
        student = nn.functional.log_softmax(logits / self.temperature, dim=1)
        apart = nn.functional.kl_div(student, softened, reduction="none", log_target=True).sum(1)
        distilled = self.weight * self.temperature**2 * (apart * self.weights(targets)).sum()
        labelled = self.task.loss(logits, targets, pictures)
        if self.matching is None:
            return (1 - self.weight) * labelled + distilled
        assert features is not None  # they are wanted
        matched = self.matching.weight * (self.matching.apart(features, seen[-1]) * self.weights(targets)).sum()
        return (1 - self.weight - self.matching.weight) * labelled + distilled + matched


def task_of(
    settings: TrainSettings,
    labels: Sequence[str],
    counts: Mapping[int, int],
    device: torch.device,
    student: Network | None = None,
) -> Task:
    """The task that the settings ask for.

    Args:
        settings: of the run.
        labels: of the classes, in order.
        counts: training images of each class by its number; none may be 0 where classes are balanced.
        device: where the logits will be.
        student: the network that learns; needed where features are matched.

    Raises:
        ModelError: features cannot be seen.
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
    matching = None
    if settings.feature_weight:
        assert student is not None
        own = width(student.model, student.head, student.preprocessing.image_size)
        theirs = width(teacher.model, teacher.head, teacher.size)
        matching = Matching(teacher.head, own, theirs, settings.feature_weight, settings.seed, device)
    return Distillation(task, teacher, settings.teacher_weight, settings.teacher_temperature, matching)
