"""Sequential tests (anytime-valid): evidence that two models differ, however often the counts are tested.

`log_evidence` and `log_evidence_of_shift` are the logarithms of test martingales: under the null hypothesis such a
product of likelihood ratios exceeds 1/alpha at any time at all with a probability of at most alpha (Ville 1939), so
that testing every few seconds, in every replica, costs nothing. They depend on the present counts alone, so that a
process that starts anew comes to the same result.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lensmith.core.stats import wilson

ODDS = (1.5, 2.0, 4.0)
"""Alternatives of equal weight: the factor by which the odds exceed those of the null hypothesis. Below 1.5 nobody
would roll back, beyond 4 the difference shows soon anyway, and each further one would cost the others evidence."""
PRIORS = (4.0, 16.0, 64.0)
"""Alternatives for classes: sizes of a Beta prior of a class's part in the challenger's answers; from differences of
several times (4) to some percent (64)."""

_log_gamma = np.frompyfunc(math.lgamma, 1, 1)


def log_evidence(hits: float, others: float, share: float) -> float:
    """Evidence that hits are more than `share` of all trials, as a natural logarithm.

    A mixture of likelihood ratios of Bernoulli trials (Robbins 1970; Ramdas et al. 2023, "Game-theoretic statistics and
    safe anytime-valid inference"). Each ratio falls as the true share falls, so that it holds for every share up to the
    one given.

    Args:
        hits: number of trials that are hits.
        others: number of trials that are no hits.
        share: null hypothesis: at most this share of trials are hits; 0..1.

    Returns:
        The logarithm; beyond log(1/alpha) the null hypothesis can be rejected at level alpha, whenever that happens.
        -inf where hits are no more than that share.
    """
    if not 0 < share < 1 or hits <= share * (hits + others):
        return -math.inf
    logs = []
    for odds in ODDS:
        among = 1 - share + odds * share
        logs.append(hits * math.log(odds / among) - others * math.log(among))
    return _log_mean(logs)


def lower_bound(hits: int, trials: int, alpha: float) -> float:
    """The largest share of hits that the counts rule out at level alpha, at any time; 0 where they rule out none."""
    low, high = 0.0, hits / trials if trials else 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if log_evidence(hits, trials - hits, middle) >= math.log(1 / alpha):
            low = middle
        else:
            high = middle
    return low


def log_evidence_of_shift(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Evidence that two models' distributions over classes differ, as a natural logarithm.

    Under the null hypothesis an answer of any class is the first model's with the same probability. The alternative
    gives each class a probability of its own, drawn from a Beta distribution about the common one; the null hypothesis
    is given its best case (universal inference: Wasserman, Ramdas & Balakrishnan 2020).

    Args:
        first: float64 (C,), the first model's answers by class.
        second: float64 (C,), the second model's answers by class.

    Returns:
        The logarithm, used like that of `log_evidence`.
    """
    total = first.sum() + second.sum()
    share = first.sum() / total if total else 0.0
    if not 0 < share < 1:
        return -math.inf
    null = first.sum() * math.log(share) + second.sum() * math.log(1 - share)
    logs = []
    for size in PRIORS:
        a, b = size * share, size * (1 - share)
        found = _log_gamma(first + a) + _log_gamma(second + b) - _log_gamma(first + second + size)
        constant = math.lgamma(size) - math.lgamma(a) - math.lgamma(b)
        logs.append(float(np.sum(found) + constant * len(first) - null))
    return _log_mean(logs)


def _log_mean(logs: list[float]) -> float:
    """The logarithm of the mean of exp(logs), without overflow."""
    most = max(logs)
    return most + math.log(sum(math.exp(each - most) for each in logs) / len(logs))


def shift(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Class shift: the share of answers that would have to move for two distributions to be the same, 0..1.

    The total variation distance of the observed shares, less its expectation by chance alone; without that, a hundred
    classes would differ by a fifth after 500 answers.

    Args:
        first: float64 (C,), the first model's answers by class.
        second: float64 (C,), the second model's answers by class.
    """
    n, m = first.sum(), second.sum()
    if n == 0 or m == 0:
        return 0.0
    pooled = (first + second) / (n + m)
    by_chance = np.sqrt(2 / math.pi * pooled * (1 - pooled) * (1 / n + 1 / m)).sum() / 2
    return max(0.0, float(np.abs(first / n - second / m).sum() / 2 - by_chance))


def least_shift(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Lower end of the 95 % interval of the class shift, 0..1.

    The shift is the difference of two shares, those of the classes that the first model names more often, and scatters
    as they do (Agresti & Caffo 2000: with one more hit and one more miss of each).

    Args:
        first: float64 (C,), the first model's answers by class.
        second: float64 (C,), the second model's answers by class.
    """
    moved, n, m = shift(first, second), first.sum(), second.sum()
    if moved == 0:  # also where one of both has answered nothing
        return 0.0
    more = first / n > second / m
    share, other = (first[more].sum() + 1) / (n + 2), (second[more].sum() + 1) / (m + 2)
    deviation = math.sqrt(share * (1 - share) / n + other * (1 - other) / m)
    return max(0.0, moved - 1.96 * deviation)


def largest_difference(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """Upper end of the 95 % interval of the difference of two shares, from their Wilson intervals (Newcombe 1998)."""
    if trials == 0 or other_trials == 0:
        return 1.0
    share, other = hits / trials, other_hits / other_trials
    upper, other_lower = wilson(hits, trials)[1], wilson(other_hits, other_trials)[0]
    return share - other + math.hypot(upper - share, other - other_lower)


@lru_cache(maxsize=4096)
def more_than_chance(trials: int, share: float, level: float) -> int:
    """The smallest number of hits that so many trials reach with a probability of at most `level` (exact binomial)."""
    mean, deviation = trials * share, math.sqrt(trials * share * (1 - share))
    hits, tail = min(trials, math.ceil(mean + 12 * deviation + 20)), 0.0
    while hits >= 0:
        log = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
        tail += math.exp(log + hits * math.log(share) + (trials - hits) * math.log1p(-share))
        if tail > level:
            break
        hits -= 1
    return hits + 1
