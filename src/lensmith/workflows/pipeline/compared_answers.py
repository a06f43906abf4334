"""Answers of the new model and of the champion to the same images: what became right, and what became wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lensmith.core.files import atomic_path
from lensmith.errors import RunError
from lensmith.evaluation.metrics import Ints
from lensmith.workflows.pipeline import intervals
from lensmith.workflows.pipeline.intervals import Bools, Floats, Interval
from lensmith.workflows.pipeline.predictions import ModelPredictions

COMPARED = "compared.npz"
"""File in the folder of the gate's stage."""

RESAMPLES, SEED = 4000, 0


@dataclass(frozen=True)
class ComparedAnswers:
    """Answers of two models to N images, in the champion's labels.

    Attributes:
        labels: names of the champion's C classes, and after them a name for all other classes.
        files: paths of the N images.
        truth: int64 (N,), true class of each image, 0..C−1.
        new: int64 (N,), the new model's answers, 0..C, where C is a class that the champion does not know.
        new_confidence: float64 (N,), their probabilities, 0..1.
        old: int64 (N,), the champion's answers, 0..C−1.
        old_confidence: float64 (N,), their probabilities, 0..1.
    """

    labels: tuple[str, ...]
    files: tuple[str, ...]
    truth: Ints
    new: Ints
    new_confidence: Floats
    old: Ints
    old_confidence: Floats

    @classmethod
    def of(cls, new: ModelPredictions, old: ModelPredictions) -> ComparedAnswers:
        """The answers with the highest probability, of predictions on the same images."""
        return cls(
            labels=(*old.labels, "another class"),
            files=tuple(map(os.path.normpath, old.files)),
            truth=old.truth.astype(np.int64),
            new=new.probabilities.argmax(axis=1).astype(np.int64),
            new_confidence=new.confidence,
            old=old.probabilities.argmax(axis=1).astype(np.int64),
            old_confidence=old.confidence,
        )

    @property
    def new_correct(self) -> Bools:
        """bool (N,), whether the new model is right."""
        return np.asarray(self.new == self.truth)

    @property
    def old_correct(self) -> Bools:
        """bool (N,), whether the champion is right."""
        return np.asarray(self.old == self.truth)

    @property
    def became_right(self) -> Ints:
        """int64 (K,), rows that only the new model has right, the most confident first."""
        rows = np.flatnonzero(self.new_correct & ~self.old_correct)
        return rows[np.argsort(-self.new_confidence[rows], kind="stable")]

    @property
    def became_wrong(self) -> Ints:
        """int64 (K,), rows that only the champion has right, the most confident mistake first."""
        rows = np.flatnonzero(~self.new_correct & self.old_correct)
        return rows[np.argsort(-self.new_confidence[rows], kind="stable")]

    @property
    def difference(self) -> Interval:
        """Accuracy of the new model less that of the champion, in percentage points, with its paired interval."""
        found = intervals.accuracy_difference(self.new_correct, self.old_correct, RESAMPLES, SEED)
        return found.in_percentage_points()

    def accuracy(self, correct: Bools) -> Interval:
        """Share of the images that a model has right, with its interval; `correct` is bool (N,)."""
        return intervals.share(int(correct.sum()), len(correct))

    def save(self, path: Path) -> None:
        """Write the arrays as a NumPy archive, without pickle, whole or not at all."""
        with atomic_path(path) as partial:
            np.savez_compressed(
                partial, allow_pickle=False, **{name: np.asarray(getattr(self, name)) for name in _NAMES}
            )

    @classmethod
    def read(cls, path: Path) -> ComparedAnswers:
        """Read what `save` wrote.

        Raises:
            RunError: there is no such file, or it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found: dict[str, npt.NDArray[np.generic]] = {name: arrays[name] for name in _NAMES}
        except Exception as error:  # NumPy raises nearly anything on damaged archives
            raise RunError(
                f"Answers of both models were expected in {path}.",
                f"They cannot be read ({error}).",
                "Compare again with: lensmith pipeline run FILE --force gate",
            ) from error
        texts = {name: tuple(map(str, found.pop(name))) for name in ("labels", "files")}
        return cls(**texts, **found)  # type: ignore[arg-type]


_NAMES = tuple(field.name for field in fields(ComparedAnswers))
