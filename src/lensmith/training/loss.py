"""The loss of a training step: cross-entropy with label smoothing and class weights, and distillation from a teacher.

A task gives every sample a weight and a chunk of samples the sum of their losses. Sums over all chunks divided by the
batch's whole weight are the loss of the batch, however it was cut.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.training.feature_distillation import FeatureDistillation, feature_hook, feature_width
from lensmith.training.models.backbone import Network
from lensmith.training.precision import autocast
from lensmith.training.teacher import Teacher


class Classification:
    """Cross-entropy with label smoothing and class weights.

    Args:
        label_smoothing: share of the target that goes to all classes alike, 0..1.
        class_weights: float32 (C,) on the logits' device; None: all classes count alike.

    Attributes:
        wants_features: whether `loss` needs the inputs of the network's head.
        precision: the step's precision (fp32, bf16 or fp16), in which a task's own networks may also compute.
    """

    wants_features = False
    precision = "fp32"

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def weights(self, targets: Tensor) -> Tensor:
        """Sample weights, float32 (N,), of targets int64 (N,) or, where a batch was mixed, float32 (N, C)."""
        if self.class_weights is None:
            return torch.ones(len(targets), device=targets.device)
        return targets @ self.class_weights if targets.is_floating_point() else self.class_weights[targets]

    def recount(self, counts: Mapping[int, int]) -> None:
        """Set class weights anew, where there are any, for other numbers of training images by class number."""
        if self.class_weights is not None:
            self.class_weights = balanced_class_weights(counts, len(self.class_weights)).to(self.class_weights.device)

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor, features: Tensor | None = None) -> Tensor:
        """Cross-entropy with label smoothing: float32 (N, C) and targets → the samples' weighted sum, a scalar.

        Divided by the sum of weights it is PyTorch's weighted mean.
        """
        return nn.functional.cross_entropy(
            logits, targets, self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )


class Distillation:
    """Knowledge distillation: a task's loss mixed with the distance to a teacher's answers, and to its features.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015: T² · KL(teacher ‖ student).

    Args:
        task: the loss on the labels, which gets the share that is left.
        teacher: the trained network; float32 (N, 3, S, S) in 0..1 → logits (N, C).
        weight: share of the distance to the teacher's softened answers, 0..1.
        temperature: T > 0, by which both logits are divided.
        feature_loss: distance between features, with a share of its own; None: answers alone.
    """

    precision = "fp32"

    def __init__(
        self,
        task: Classification,
        teacher: nn.Module,
        weight: float,
        temperature: float,
        feature_loss: FeatureDistillation | None = None,
    ) -> None:
        self.task, self.teacher, self.weight, self.temperature = task, teacher, weight, temperature
        self.feature_loss, self.wants_features = feature_loss, feature_loss is not None

    def weights(self, targets: Tensor) -> Tensor:
        """Sample weights, float32 (N,), of targets int64 (N,) or float32 (N, C)."""
        return self.task.weights(targets)

    def recount(self, counts: Mapping[int, int]) -> None:
        """Set class weights anew, where there are any, for other numbers of training images by class number."""
        self.task.recount(counts)

    def loss(self, logits: Tensor, targets: Tensor, pictures: Tensor, features: Tensor | None = None) -> Tensor:
        """The task's loss and the distances to the teacher, each by its share: a scalar.

        Args:
            logits: float32 (N, C).
            targets: int64 (N,), or float32 (N, C) whose rows add up to 1.
            pictures: float32 (N, 3, S, S) in 0..1, not normalised.
            features: float32 (N, F), the inputs of the student's head; needed where features are distilled.
        """
        # In float16 a network that was not trained in it may overflow, and nothing would scale it down.
        half = autocast(pictures.device, "bf16" if self.precision == "bf16" else "fp32")
        with torch.no_grad(), half, feature_hook(self.feature_loss.head if self.feature_loss else None) as seen:
            answers: Tensor = self.teacher(pictures)
        softened = nn.functional.log_softmax(answers.float() / self.temperature, dim=1)
        student = nn.functional.log_softmax(logits / self.temperature, dim=1)
        apart = nn.functional.kl_div(student, softened, reduction="none", log_target=True).sum(1)
        distilled = self.weight * self.temperature**2 * (apart * self.weights(targets)).sum()
        labelled = self.task.loss(logits, targets, pictures)
        if self.feature_loss is None:
            return (1 - self.weight) * labelled + distilled
        assert features is not None  # they are wanted
        share = self.feature_loss.weight
        matched = share * (self.feature_loss.distance(features, seen[-1]) * self.weights(targets)).sum()
        return (1 - self.weight - share) * labelled + distilled + matched


Task = Classification | Distillation
"""The loss as the step sees it: `weights`, `loss`, `wants_features` and `precision`."""


def task_of(
    settings: TrainSettings,
    labels: Sequence[str],
    counts: Mapping[int, int],
    device: torch.device,
    student: Network | None = None,
) -> Task:
    """The loss that the settings ask for.

    Args:
        settings: the run's settings.
        labels: class names, in order.
        counts: number of training images by class number.
        device: the logits' device.
        student: the network that learns; needed where features are distilled.

    Raises:
        ModelError: the network does not hand features to its head.
        RunError: the teacher's run cannot be read.
        SettingsError: the teacher was trained for other classes.
    """
    weights = balanced_class_weights(counts, len(labels)).to(device) if settings.class_weights == "balanced" else None
    task = Classification(settings.label_smoothing, weights)
    if settings.teacher is None:
        return task
    teacher = Teacher.of(settings.teacher, labels).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    feature_loss = None
    if settings.feature_weight:
        assert student is not None
        own = feature_width(student.model, student.head, student.preprocessing.image_size)
        theirs = feature_width(teacher.model, teacher.head, teacher.size)
        feature_loss = FeatureDistillation(teacher.head, own, theirs, settings.feature_weight, settings.seed, device)
    return Distillation(task, teacher, settings.teacher_weight, settings.teacher_temperature, feature_loss)


def balanced_class_weights(counts: Mapping[int, int], classes: int) -> Tensor:
    """Class weights that make all classes count alike: float32 (C,), inverse to their number of training images.

    A class without an image has the weight 0, and the others count alike.
    """
    images = torch.tensor([counts[number] for number in range(classes)], dtype=torch.float32)
    present = images > 0
    return torch.where(present, images.sum() / (present.sum() * images.clamp(min=1)), torch.zeros_like(images))
