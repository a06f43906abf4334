"""Parity of a graph with PyTorch: probabilities and classes are compared image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.core.result import Result
from lensmith.errors import ParityError
from lensmith.imaging.preprocessing import Tensor


@dataclass(frozen=True)
class Disagreement:
    """An image whose likeliest class differs.

    Attributes:
        path: the image's path below the root of its set.
        torch: name of PyTorch's class.
        graph: name of the graph's class.
        margin: PyTorch's probability of its class less that of the second, 0..1.
    """

    path: str
    torch: str
    graph: str
    margin: float


@dataclass(frozen=True)
class Parity(Result):
    """Differences of a graph's answers from PyTorch's.

    Attributes:
        images: number of images that were compared.
        largest_difference: largest difference of a probability, over all images and classes.
        agreement: share of images with the same likeliest class, 0..1.
        disagreements: images with another likeliest class.
        drop: accuracy that the graph loses against what the run reported, in percentage points; below 0 where it
            gains.
        per_class_change: accuracy that the graph gains on each class, in percentage points; None without images.
    """

    images: int
    largest_difference: float
    agreement: float
    disagreements: tuple[Disagreement, ...]
    drop: float = 0.0
    per_class_change: tuple[float | None, ...] = ()

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Parity:
        """Read the values of `as_dict` back; fields that an older version did not write have their defaults."""
        found = {field.name: stored[field.name] for field in fields(cls) if field.name in stored}
        found["disagreements"] = tuple(Disagreement(**each) for each in stored["disagreements"])
        found["per_class_change"] = tuple(stored.get("per_class_change", ()))
        return cls(**found)

    def require(self, tolerance: float, min_agreement: float) -> None:
        """Refuse a graph that differs from PyTorch by more than its limits.

        Args:
            tolerance: largest allowed difference of a probability.
            min_agreement: smallest allowed share of images with the same class, 0..1.

        Raises:
            ParityError: the graph is beyond a limit.
        """
        if self.largest_difference <= tolerance and self.agreement >= min_agreement:
            return
        raise ParityError(
            f"The graph was expected to stay within {tolerance:g} of PyTorch's probabilities"
            f" and to agree on {min_agreement:.2%} of the images.",
            f"Over {self.images} images they differ by up to {self.largest_difference:.3g}"
            f" and agree on {self.agreement:.2%}.",
            "No bundle was written; allow more with --tolerance or --min-agreement if you can accept that.",
        )


def compare(
    expected: Tensor,
    answered: Tensor,
    paths: Sequence[str],
    labels: Sequence[str],
    truth: npt.NDArray[np.int64],
    reported: npt.NDArray[np.bool_] | None = None,
) -> Parity:
    """Compare an engine's probabilities with PyTorch's.

    Args:
        expected: float32 (N, C), PyTorch's probabilities.
        answered: float32 (N, C), probabilities of the graph's engine.
        paths: N paths of the images.
        labels: C class names.
        truth: int64 (N,), true classes, 0..C-1.
        reported: bool (N,), whether the run's own answers were correct, which accuracy is lost against; None: those of
            PyTorch now.
    """
    ours, theirs = expected.argmax(axis=1), answered.argmax(axis=1)
    ranked = np.sort(expected, axis=1)
    differing = np.flatnonzero(ours != theirs)
    gained = (theirs == truth).astype(np.int64) - ((ours == truth) if reported is None else reported)
    counts = np.bincount(truth, minlength=len(labels))
    changes = np.bincount(truth, weights=gained, minlength=len(labels))
    return Parity(
        images=len(expected),
        largest_difference=float(np.abs(expected - answered).max()),
        agreement=float((ours == theirs).mean()),
        disagreements=tuple(
            Disagreement(paths[i], labels[ours[i]], labels[theirs[i]], float(ranked[i, -1] - ranked[i, -2]))
            for i in differing.tolist()
        ),
        drop=0.0 - 100 * float(gained.mean()),  # and no -0.0
        per_class_change=tuple(
            100 * float(change) / int(count) if count else None for change, count in zip(changes, counts, strict=True)
        ),
    )
