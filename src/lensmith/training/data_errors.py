"""What is wrong with images and losses while a run goes on: named once, by their files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.data.scan import ImageSet
from lensmith.errors import DataError, RunError
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.run_dir.recorder import Recorder

SHOWN_FILES = 5


class DataErrors:
    """Names a run's unreadable files, wrong labels and losses that are not numbers.

    Args:
        images: the run's images, in parts.
        settings: the run's settings.
        recorder: receives events and messages.
    """

    def __init__(self, images: ImageSet, settings: TrainSettings, recorder: Recorder) -> None:
        self.images, self.settings, self.recorder = images, settings, recorder
        self._training = images.part("train")
        self._unreadable: dict[str, str] = {}  # path → reason
        self._lost: set[str] = set()
        self._unread: list[tuple[int, list[int], Tensor]] = []  # steps whose loss nobody has looked at yet

    def leave_out(self, unreadable: Sequence[tuple[str, str]]) -> None:
        """Name files that cannot be read, each once."""
        for path, reason in unreadable:
            if path not in self._unreadable:
                self._unreadable[path] = reason
                self.recorder.event("left_out", path=path, reason=reason)
                self.recorder.log(f"left out: {path}: {reason}")

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(path, reason) of the files left out so far, as far as this rank knows."""
        return list(self._unreadable.items())

    def require_labels(self, batch: Batch) -> None:
        """Refuse a label that is no class, which a GPU would only answer with a crash.

        Raises:
            DataError: naming the file.
        """
        classes = len(self.images.labels)
        for label, index in zip(batch.labels.tolist(), batch.indices, strict=True):
            if not 0 <= label < classes:
                raise DataError(
                    f"A label from 0 to {classes - 1} was expected of {self._training[index].path}.",
                    f"It is {label}.",
                    "Correct the manifest; `lensmith data check DIR` shows the classes it finds.",
                )

    def watch(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Keep a step's loss to be looked at later, since looking waits for the device."""
        self._unread.append((step, batch.indices, loss))

    def skipped(self, step: int, indices: Sequence[int]) -> None:
        """Name the files of a step that was thrown away, by their samples."""
        files = self._files(indices)
        self.recorder.event("skipped", step=step + 1, files=files)
        self.recorder.log(f"skipped: the loss of step {step + 1} is not a number: {_some(files)}")

    def require_finite(self) -> None:
        """Look at the losses since the last time.

        Raises:
            RunError: naming the first step whose loss is not a number, and its files.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        finite = torch.isfinite(torch.stack([loss for *_, loss in unread])).tolist()
        for (step, indices, _), fine in zip(unread, finite, strict=True):
            if not fine:
                files = self._files(indices)
                self.recorder.event("not_a_number", step=step + 1, files=files)
                raise RunError(
                    f"A finite training loss was expected at step {step + 1}.",
                    f"It is not a number; the batch was {_some(files)}.",
                    f"{self._remedy()[:-1]}; the checkpoint before it is kept.",
                )

    def require_finite_validation(self, loss: float) -> None:
        """Refuse a validation loss that is not a number.

        Raises:
            RunError: it is none.
        """
        if not math.isfinite(loss):
            raise RunError("A finite validation loss was expected.", f"It is {loss}.", self._remedy())

    def require_finite_weights(self, model: nn.Module) -> None:
        """Refuse weights that the last step made useless, where no validation would notice.

        Raises:
            RunError: one is not a number.
        """
        for name, parameter in model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise RunError("Finite weights were expected.", f"Those of {name} are not.", self._remedy())

    def name_lost_classes(self) -> None:
        """Name the classes that have lost all their training images.

        Raises:
            DataError: all of them have.
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
        ways = [f"a smaller rate (--lr {self.settings.lr / 10:g})"]
        ways += ["--precision fp32"] if self.settings.precision != "fp32" else []
        ways += ["--on-nan skip"] if self.settings.on_nan != "skip" else []
        return f"Try {', or '.join(ways)}."


def _some(files: Sequence[str]) -> str:
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    return ", ".join(files[:SHOWN_FILES]) + more
