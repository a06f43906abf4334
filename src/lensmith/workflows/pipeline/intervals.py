"""How sure a number is: intervals of differences between two models that answered the same images.

Images are drawn again, with replacement (Efron and Tibshirani 1993, chapter 13: percentile intervals), and both models
are judged on the same draw, so that what is hard about an image does not count as a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, binomtest

from lensmith.evaluation.metrics import CALIBRATION_BINS

LEVEL = 0.95
BLOCK_BYTES = 32 << 20
"""Memory for a block of resamples."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number with what it may be.

    Attributes:
        value: as measured.
        low: lower end; the number itself where it is exact.
        high: upper end.
        level: share of such intervals that hold the truth, 0..1.
    """

    value: float
    low: float
    high: float
    level: float = LEVEL

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Of a number that is known."""
        return cls(value, value, value, 1.0)

    def as_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}


def share(right: int, count: int, level: float = LEVEL) -> Interval:
    """Of a share of right answers: Wilson's score interval."""
    found = binomtest(right, count).proportion_ci(level, method="wilson")
    return Interval(right / count, float(found.low), float(found.high), level)


def difference(new: Bools, old: Bools, resamples: int, seed: int, level: float = LEVEL) -> Interval:
    """Of the accuracy of one model minus another's on the same images.

    A draw of images matters only by how many of them one model gets right and the other wrong, each way; these two
    counts are drawn from their multinomial, which is the bootstrap over images itself, at no cost. Where the two
    models never differ, every draw says 0; what may have been missed then is bounded exactly (Clopper and Pearson).

    Args:
        new: bool (N,), whether it is right.
        old: bool (N,), the other on the same images.
        resamples: draws.
        seed: of the draws.
        level: of the interval.
    """
    count = len(new)
    won, lost = int((new & ~old).sum()), int((~new & old).sum())
    value = (won - lost) / count
    if won == lost == 0:
        missed = 1 - ((1 - level) / 2) ** (1 / count)
        return Interval(0.0, -missed, missed, level)
    shares = [won / count, lost / count, (count - won - lost) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, resamples)
    return _percentiles(value, (drawn[:, 0] - drawn[:, 1]) / count, level)


def calibration(
    right: Bools, confidence: Floats, resamples: int, seed: int, old: tuple[Bools, Floats] | None = None
) -> Interval:
    """Of the expected calibration error, or of its difference from another model's on the same images.

    Args:
        right: bool (N,).
        confidence: float (N,), of the predicted class, 0..1.
        resamples: draws.
        seed: of the draws.
        old: the same of the other model.
    """
    gaps = [_gaps(right, confidence)] + ([_gaps(*old)] if old else [])
    count = len(right)

    def errors(weights: Floats) -> Floats:
        """(B, N) weights → (B,) error, or its difference."""
        found = [np.abs(weights @ each).sum(axis=1) / count for each in gaps]
        return np.asarray(found[0] - found[1] if old else found[0])

    value = float(errors(np.ones((1, count)))[0])
    drawn = np.concatenate([errors(block) for block in _weights(count, resamples, seed)])
    # Noise can only add to an error that is a sum of absolute values, so draws lie above what they vary around.
    found = _percentiles(value, drawn - drawn.mean() + value, LEVEL)
    return found if old else Interval(value, max(0.0, found.low), found.high)


def median(values: npt.ArrayLike, level: float = LEVEL) -> Interval:
    """Of the median of independent measurements, whatever their distribution: by their order (David and Nagaraja 2003).

    Args:
        values: at least one; with fewer than six the interval is that of all of them, and surer than nothing.
        level: of the interval.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    rank = max(0, int(binom.ppf((1 - level) / 2, count, 0.5)) - 1)
    return Interval(float(np.median(ordered)), float(ordered[rank]), float(ordered[count - 1 - rank]), level)


def _gaps(right: Bools, confidence: Floats) -> Floats:
    """(N, bins): right minus confidence of each image, in the column of its bin."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    found = np.zeros((len(right), CALIBRATION_BINS))
    found[np.arange(len(right)), bins] = right - confidence
    return found


def _weights(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, (B, N) a block."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_BYTES // (8 * count))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield generator.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)


def _percentiles(value: float, drawn: npt.NDArray[Any], level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)
