"""Confidence intervals of differences between two models on the same images, by a paired bootstrap.

Images are resampled with replacement (Efron and Tibshirani 1993, chapter 13: percentile intervals), and both models are
evaluated on the same resample, so that what is hard about an image does not count as a difference between models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from lensmith.core.result import Result
from lensmith.core.stats import percentile_interval, wilson
from lensmith.evaluation.metrics import CALIBRATION_BINS

LEVEL = 0.95
BLOCK_BYTES = 32 << 20
"""Memory for a block of resamples."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval(Result):
    """A measured number with its confidence interval.

    Attributes:
        value: measured value.
        low: lower end; the value itself where it is exact.
        high: upper end.
        level: confidence level, 0..1.
    """

    value: float
    low: float
    high: float
    level: float = LEVEL

    @classmethod
    def exact(cls, value: float) -> Interval:
        """The interval of a number that is known exactly."""
        return cls(value, value, value, 1.0)

    def in_percentage_points(self) -> Interval:
        """The same interval times 100."""
        return Interval(100 * self.value, 100 * self.low, 100 * self.high, self.level)


def share(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share, such as an accuracy."""
    return Interval(hits / trials, *wilson(hits, trials, level), level)


def accuracy_difference(new: Bools, old: Bools, resamples: int, seed: int, level: float = LEVEL) -> Interval:
    """Interval of the accuracy of one model minus that of another on the same images.

    A resample of the images matters only by how many of them one model gets right and the other wrong, each way. These
    two counts are drawn from their multinomial distribution, which equals the bootstrap over images at no cost. Where
    the two models never differ, every resample gives 0; then the interval is exact (Clopper and Pearson).

    Args:
        new: bool (N,), whether the new model is correct on each image.
        old: bool (N,), whether the old model is correct on each image.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
        level: confidence level, 0..1.
    """
    count = len(new)
    won, lost = int((new & ~old).sum()), int((~new & old).sum())
    if won == lost == 0:
        missed = 1 - ((1 - level) / 2) ** (1 / count)
        return Interval(0.0, -missed, missed, level)
    shares = [won / count, lost / count, (count - won - lost) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, resamples)
    low, high = percentile_interval((drawn[:, 0] - drawn[:, 1]) / count, level)
    return Interval((won - lost) / count, float(low), float(high), level)


def calibration_error(
    correct: Bools, confidence: Floats, resamples: int, seed: int, old: tuple[Bools, Floats] | None = None
) -> Interval:
    """Interval of the expected calibration error, or of its difference from another model's on the same images.

    Args:
        correct: bool (N,), whether the model is correct on each image.
        confidence: float64 (N,), probability of the predicted class, 0..1.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.
        old: `correct` and `confidence` of the other model.
    """
    gaps = [_gaps(correct, confidence)] + ([_gaps(*old)] if old else [])
    count = len(correct)

    def errors(weights: Floats) -> Floats:
        """Weights, float64 (B, N) → float64 (B,): calibration error of each resample, or its difference."""
        found = [np.abs(weights @ each).sum(axis=1) / count for each in gaps]
        return np.asarray(found[0] - found[1] if old else found[0])

    value = float(errors(np.ones((1, count)))[0])
    drawn = np.concatenate([errors(block) for block in _resample_weights(count, resamples, seed)])
    # Noise can only add to an error that is a sum of absolute values, so resamples lie above the value: centre them.
    low, high = (float(end) for end in percentile_interval(drawn - drawn.mean() + value))
    return Interval(value, low if old else max(0.0, low), high)


def median(values: npt.ArrayLike) -> Interval:
    """Interval of the median, from the order of the values, whatever their distribution (David and Nagaraja 2003).

    Args:
        values: float (N,), N ≥ 1, independent measurements; with N < 6 the interval is their whole range, which covers
            the median less often than LEVEL says.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    rank = max(0, int(binom.ppf((1 - LEVEL) / 2, count, 0.5)) - 1)
    return Interval(float(np.median(ordered)), float(ordered[rank]), float(ordered[count - 1 - rank]))


def _gaps(correct: Bools, confidence: Floats) -> Floats:
    """float64 (N, bins): correctness minus confidence of each image, in the column of its confidence bin."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    found = np.zeros((len(correct), CALIBRATION_BINS))
    found[np.arange(len(correct)), bins] = correct - confidence
    return found


def _resample_weights(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks of float64 (B, N): how often each resample draws each image."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_BYTES // (8 * count))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield generator.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
