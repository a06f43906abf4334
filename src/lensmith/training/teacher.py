"""The teacher of a distillation: a trained network with its own preprocessing, of the same classes and parts.

With other parts data would leak: the student would learn from images that the teacher is validated on, or be validated
on images that the teacher learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.core.text import listed
from lensmith.data.image_set import ImageSet
from lensmith.errors import SettingsError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.imaging.value_range import ValueRange, describe
from lensmith.training.models import backbone
from lensmith.training.models.fold_batchnorm import BatchNormFolding
from lensmith.training.run_dir import checkpoint, diff
from lensmith.training.run_dir.run import Run


class Teacher(nn.Module):
    """A trained network with its own preprocessing, always in evaluation mode.

    Args:
        model: the network; float32 (N, 3, S, S), normalised → logits (N, C).
        how: the preprocessing that it was trained with; images of another size are resampled to its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, how: Preprocessing) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.size = how.image_size
        self._filter = how.interpolation
        self.register_buffer("mean", torch.tensor(how.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(how.std).view(1, 3, 1, 1))
        BatchNormFolding(self.model, self.size).fold()  # it answers in every step, and its statistics never change

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        head: nn.Module = self.model.get_classifier()
        return head

    def forward(self, pictures: Tensor) -> Tensor:
        """Images float32 (N, 3, S, S) in 0..1 → logits float32 (N, C)."""
        if pictures.shape[2:] != (self.size, self.size):
            size = (self.size, self.size)
            pictures = nn.functional.interpolate(pictures, size, mode=self._filter, antialias=True).clamp(0, 1)
        logits: Tensor = self.model((pictures - self.mean) / self.std)
        return logits

    @classmethod
    def of(cls, path: Path, labels: Sequence[str]) -> Teacher:
        """The network of a run's best epoch.

        Raises:
            RunError: there is no run, or the run has not finished an epoch.
            SettingsError: the run was trained for other classes than `labels`.
        """
        run = Run.open(path)
        _require_classes(run, labels)
        weights = checkpoint.load(run.best, if_missing="Let the teacher finish an epoch first.")["model"]
        return cls(backbone.rebuild(run.settings, len(labels), weights), run.preprocessing)


def require_apart(path: Path, images: ImageSet) -> None:
    """Refuse data leakage: a student that learns from images its teacher validates on, or the other way round.

    Raises:
        RunError: there is no run.
        SettingsError: the teacher was trained for other classes, or on other parts of the same images.
    """
    run = Run.open(path)
    _require_classes(run, images.labels)
    crossed = diff.crossed(run, images)
    if crossed:
        raise SettingsError(
            f"The parts that the teacher {path} was trained on were expected.",
            f"{len(crossed):,} image{'s' * (len(crossed) > 1)} would change between learning and validation "
            f"({listed(crossed, 10)}).",
            f"Use its data, seed and split, as `lensmith distill` does by itself. {another_seed(run)}",
        )


def require_value_ranges(path: Path, value_ranges: Mapping[str, ValueRange]) -> None:
    """Refuse a teacher that would see the images brighter or darker than it has learnt from them.

    Args:
        path: the teacher's run folder.
        value_ranges: black and white by kind of values, of the student's images.

    Raises:
        RunError: there is no run.
        SettingsError: the teacher has another range for one of the kinds.
    """
    theirs = Run.open(path).preprocessing.value_ranges
    for kind, ends in value_ranges.items():
        if theirs.get(kind, ends) != ends:
            raise SettingsError(
                f"A teacher was expected in {path} that learnt with {describe(kind, ends)}.",
                f"It learnt with {describe(kind, theirs[kind])}.",
                "Train the teacher anew on these images.",
            )


def another_seed(run: Run) -> str:
    """The remedy where random numbers are to differ and parts to be the same."""
    ratio = ":".join(f"{share:g}" for share in run.settings.split)
    parts = f"lensmith data split {run.source} --seed {run.settings.seed} --ratio {ratio}"
    return f"For another seed on the same parts write them down first: {parts}"


def _require_classes(run: Run, labels: Sequence[str]) -> None:
    theirs = run.images.labels
    if tuple(labels) == theirs:
        return
    lacks = [label for label in labels if label not in theirs]
    more = [label for label in theirs if label not in labels]
    parts = [f"{what} {listed(names, 10)}" for what, names in (("lacks", lacks), ("has also", more)) if names]
    raise SettingsError(
        f"A teacher of the same {len(labels)} classes was expected in {run.path}.",
        f"It {' and '.join(parts) or 'has them in another order'}.",
        "Train the teacher on the same classes, or distil from another.",
    )
