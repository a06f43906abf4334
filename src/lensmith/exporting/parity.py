"""Does the graph answer as the trained model does? Compared image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.errors import ParityError
from lensmith.imaging.preprocessing import Tensor


@dataclass(frozen=True)
class Disagreement:
    """An image whose likeliest class differs.

    Attributes:
        path: the image.
        torch: class that PyTorch names.
        graph: class that the graph names.
        margin: by how much PyTorch preferred its class to the second, as a probability.
    """

    path: str
    torch: str
    graph: str
    margin: float


@dataclass(frozen=True)
class Parity:
    """PyTorch against the graph.

    Attributes:
        images: how many were compared.
        largest_difference: of a probability, over all images and classes.
        agreement: share of images with the same likeliest class, 0..1.
        disagreements: the others.
        drop: accuracy that the graph loses, in points of 100; below 0 where it gains.
        per_class_change: the same by class, the other way round: what it gains; None for a class without images.
    """

    images: int
    largest_difference: float
    agreement: float
    disagreements: tuple[Disagreement, ...]
    drop: float = 0.0
    per_class_change: tuple[float | None, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Parity:
        """What `as_dict` gave, read back."""
        named = {field.name for field in fields(cls)} & stored.keys()
        found = {name: stored[name] for name in named}
        disagreements = tuple(Disagreement(**one) for one in stored["disagreements"])
        return cls(
            **{**found, "disagreements": disagreements, "per_class_change": tuple(found.get("per_class_change", ()))}
        )

    def require(self, tolerance: float, min_agreement: float) -> None:
        """Refuse a graph beyond its limits.

        Raises:
            ParityError: names the numbers.
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
) -> Parity:
    """Compare probabilities.

    Args:
        expected: float32 (N, C) by PyTorch.
        answered: float32 (N, C) by the graph's engine.
        paths: N files.
        labels: C class names.
        truth: int64 (N,), true classes.
    """
    ours, theirs = expected.argmax(axis=1), answered.argmax(axis=1)
    ranked = np.sort(expected, axis=1)
    differing = np.flatnonzero(ours != theirs)
    gained = (theirs == truth).astype(np.int64) - (ours == truth)
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
