"""Statistics: intervals (Wilson, bootstrap percentiles), percentiles of latencies, choice of candidates, samples."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most `most` of the items, at equal distances."""
    taken = min(most, len(items))
    return tuple(items[number * len(items) // taken] for number in range(taken))


def smoothed(probabilities: npt.NDArray[np.float32], smoothing: float) -> npt.NDArray[np.float32]:
    """Probabilities of which a share is spread evenly over the classes (additive smoothing); their order stays.

    Args:
        probabilities: float32 (N, C), each row summing to 1.
        smoothing: that share, 0..1.
    """
    if not smoothing:
        return probabilities
    return probabilities * np.float32(1 - smoothing) + np.float32(smoothing / probabilities.shape[1])


def robust_distance(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Signed distance of each value from the median in robust standard deviations (median absolute deviation).

    Args:
        values: float64 (N,), N ≥ 1.

    Returns:
        float64 (N,).
    """
    distance = values - np.median(values)
    return np.asarray(distance / max(1e-9, 1.4826 * float(np.median(np.abs(distance)))))


def wilson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927, "Probable inference", JASA 22).

    Args:
        hits: number of successes, 0..trials.
        trials: number of trials; for 0 the interval is (0, 1).
        level: confidence level, 0..1.

    Returns:
        Lower and upper end, each 0..1.
    """
    return wilson_of_share(hits / trials, trials, level) if trials else (0.0, 1.0)


def wilson_of_share(share: float, trials: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of a number of trials that need not be whole, as an effective number is not.

    Args:
        share: share of successes, 0..1.
        trials: number of trials, above 0.
        level: confidence level, 0..1.

    Returns:
        Lower and upper end, each 0..1.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    weight = z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def first_as_good_as_the_best(losses: Mapping[str, npt.NDArray[np.floating[Any]]]) -> str:
    """The first candidate whose loss cannot be told from the best one's by so few cases.

    That is, whose mean loss is higher by at most one standard error of the difference, case by case; with one case no
    difference is known to be more than chance. After Breiman et al., Classification and Regression Trees, 1984, whose
    rule takes the simplest tree within one standard error of the best.

    Args:
        losses: loss of each candidate in the same N ≥ 1 cases, float (N,), the least extreme candidate first. A
            candidate with a loss that is not a number is only taken where all have one.
    """
    finite = {name: loss for name, loss in losses.items() if np.isfinite(loss).all()} or dict(losses)
    best = min(finite.values(), key=lambda loss: float(loss.mean()))

    def is_as_good(loss: npt.NDArray[np.floating[Any]]) -> bool:
        """Whether a candidate's loss, float (N,), is the best one's but for chance."""
        more = np.asarray(loss, dtype=np.float64) - best
        error = more.std(ddof=1) / math.sqrt(len(more)) if len(more) > 1 else math.inf
        return bool(more.mean() <= error)

    return next((name for name, loss in finite.items() if is_as_good(loss)), next(iter(finite)))


def percentile_interval(drawn: npt.ArrayLike, level: float = 0.95) -> npt.NDArray[np.float64]:
    """Percentile interval of bootstrap draws (Efron and Tibshirani 1993, chapter 13).

    Args:
        drawn: float (draws, …): the statistic of each resample.
        level: confidence level, 0..1.

    Returns:
        float64 (2, …): lower and upper ends.
    """
    ends = np.quantile(np.asarray(drawn, np.float64), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(ends, np.float64)


def percentiles(values: npt.ArrayLike, wanted: Sequence[float]) -> list[float]:
    """Percentiles of observed values without interpolation: each is an observed value, the next higher one.

    Args:
        values: float (N,), N ≥ 1, in any unit.
        wanted: percentiles, each 0..100.
    """
    return [float(found) for found in np.percentile(np.asarray(values), list(wanted), method="higher")]
