"""Data errors of a run under way: unreadable images and losses that are not numbers, named by file."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.core.text import listed
from lensmith.data.image_set import ImageSet
from lensmith.errors import DataError, RunError
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.run_dir.recorder import Recorder

SHOWN_FILES = 5
"""Files that a message names at most."""


class DataErrors:
    """Names a run's unreadable files and losses that are not numbers, as events and messages."""

    def __init__(self, images: ImageSet, settings: TrainSettings, recorder: Recorder) -> None:
        self.images, self.settings, self.recorder = images, settings, recorder
        self._training = images.part("train")
        self._unreadable: dict[str, str] = {}  # path → reason
        self._lost: set[str] = set()
        self._unchecked: list[tuple[int, list[int], Tensor]] = []  # step, samples, loss

    def leave_out(self, unreadable: Sequence[tuple[str, str]]) -> None:
        """Record files that cannot be read, each once."""
        for path, reason in unreadable:
            if path not in self._unreadable:
                self._unreadable[path] = reason
                self.recorder.event("left_out", path=path, reason=reason)
                self.recorder.log(f"left out: {path}: {reason}")

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(path, reason) of the files that this rank has left out so far."""
        return list(self._unreadable.items())

    @property
    def lost_images(self) -> set[int]:
        """Numbers of the training images that cannot be read; between epochs the same on every rank."""
        if not self._unreadable:
            return set()
        return {number for number, sample in enumerate(self._training) if sample.path in self._unreadable}

    def watch(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Note a step's loss, a scalar of any float dtype, to check later, since reading it waits for the device."""
        self._unchecked.append((step, batch.indices, loss))

    def skipped(self, step: int, indices: Sequence[int]) -> None:
        """Record the files of a skipped step, whose samples are `indices`."""
        files = self._files(indices)
        self.recorder.event("skipped", step=step + 1, files=files)
        self.recorder.log(f"skipped: the loss of step {step + 1} is not a number: {listed(files, SHOWN_FILES)}")

    def require_finite(self) -> None:
        """Check the losses noted since the last call.

        Raises:
            RunError: a loss is not a number; the error names the step and its files.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        finite = torch.isfinite(torch.stack([loss for *_, loss in unchecked])).tolist()
        for (step, indices, _), fine in zip(unchecked, finite, strict=True):
            if not fine:
                files = self._files(indices)
                self.recorder.event("not_a_number", step=step + 1, files=files)
                raise RunError(
                    f"A finite training loss was expected at step {step + 1}.",
                    f"It is not a number; the batch was {listed(files, SHOWN_FILES)}.",
                    f"{self._remedy()[:-1]}; the checkpoint before it is unchanged.",
                )

    def require_finite_validation(self, loss: float) -> None:
        """Refuse a validation loss that is not a number.

        Raises:
            RunError: the loss is not a number.
        """
        if not math.isfinite(loss):
            raise RunError("A finite validation loss was expected.", f"It is {loss}.", self._remedy())

    def require_finite_weights(self, model: nn.Module) -> None:
        """Refuse weights that the last step spoiled, where no validation would show it.

        Raises:
            RunError: a weight is not a number.
        """
        for name, parameter in model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise RunError("Finite weights were expected.", f"Those of {name} are not.", self._remedy())

    def name_lost_classes(self) -> None:
        """Record the classes that have lost all their training images.

        Raises:
            DataError: all classes have.
        """
        if not self._unreadable:
            return
        left = Counter(sample.label for sample in self._training if sample.path not in self._unreadable)
        if not left:
            raise DataError(
                f"Training images that can be read were expected in {self.images.root}.",
                f"None of {len(self._training):,} can.",
                f"See what is wrong with each: lensmith data check {self.images.root}",
            )
        lost = {label for number, label in enumerate(self.images.labels) if not left[number]}
        for label in sorted(lost - self._lost):
            self.recorder.event("class_left_out", label=label)
            self.recorder.log(
                f"left out: {label}: none of its training images can be read, so it will not be recognised"
            )
        self._lost |= lost

    def _files(self, indices: Sequence[int]) -> list[str]:
        return [self._training[index].path for index in indices]

    def _remedy(self) -> str:
        remedies = [f"a smaller rate (--lr {self.settings.lr / 10:g})"]
        remedies += ["--precision fp32"] if self.settings.precision != "fp32" else []
        remedies += ["--on-nan skip"] if self.settings.on_nan != "skip" else []
        return f"Try {', or '.join(remedies)}."
