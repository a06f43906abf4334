"""How sure one can be that two models differ, however often one looks. NumPy and the standard library only.

`log_evidence` and `log_evidence_of_shift` are the logarithms of test martingales: under the null hypothesis such a
product of likelihood ratios exceeds 1/alpha at any time at all with a probability of at most alpha (Ville 1939), so
that a look every few seconds, by every replica, costs nothing. They depend on the present counts alone, so that a
process that starts anew comes to the same judgement.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ODDS = (1.5, 2.0, 4.0)
"""Alternatives that are weighed equally: by how much the odds exceed those of the null hypothesis. Below 1.5 nobody
would go back for it, whatever is beyond 4 shows soon anyway, and each further one would cost the others evidence."""
PRIORS = (4.0, 16.0, 64.0)
"""Alternatives for classes: how much a class's part in the challenger's answers may differ, as the size of a Beta
prior; from differences of several times (4) to some percent (64)."""

_log_gamma = np.frompyfunc(math.lgamma, 1, 1)


def log_evidence(hits: float, others: float, share: float) -> float:
    """How strongly counts speak for it that hits are more than `share` of all, as a natural logarithm.

    A mixture of likelihood ratios of Bernoulli trials (Robbins 1970; Ramdas et al. 2023, "Game-theoretic statistics and
    safe anytime-valid inference"). Each ratio falls as the true share falls, so that it holds for every share up to the
    one given.

    Args:
        hits: trials that came out so.
        others: those that did not.
        share: the null hypothesis: at most this share of trials are hits; 0 to 1.

    Returns:
        The logarithm; beyond log(1/alpha) the null hypothesis can be given up at level alpha, whenever that happens.
        -inf where hits are no more than that share: there it is below 0.
    """
    if not 0 < share < 1 or hits <= share * (hits + others):
        return -math.inf
    logs = []
    for odds in ODDS:
        among = 1 - share + odds * share
        logs.append(hits * math.log(odds / among) - others * math.log(among))
    most = max(logs)
    return most + math.log(sum(math.exp(each - most) for each in logs) / len(logs))


def lower_bound(hits: int, trials: int, alpha: float) -> float:
    """The largest share that the counts rule out at level alpha, at any time; 0 where they rule out none."""
    low, high = 0.0, hits / trials if trials else 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if log_evidence(hits, trials - hits, middle) >= math.log(1 / alpha):
            low = middle
        else:
            high = middle
    return low


def log_evidence_of_shift(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """How strongly the counts of classes (C,) of two models speak for it that their distributions differ.

    Under the null hypothesis an answer of any class is the first model's with the same probability. The alternative
    gives each class a probability of its own, drawn from a Beta distribution about the common one; the null hypothesis
    is given its best case (universal inference: Wasserman, Ramdas & Balakrishnan 2020).

    Returns:
        The logarithm, to be used as that of `log_evidence`.
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
        logs.append(float(np.sum(found)) + constant * len(first) - null)
    most = max(logs)
    return float(most + math.log(sum(math.exp(each - most) for each in logs) / len(logs)))


def shift(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """How far two distributions over classes (C,) lie apart: which share of answers would have to move, 0 to 1.

    The total variation distance of the observed shares, less what chance alone would be expected to make of it; without
    that, a hundred classes would differ by a fifth after 500 answers.
    """
    n, m = first.sum(), second.sum()
    if n == 0 or m == 0:
        return 0.0
    pooled = (first + second) / (n + m)
    by_chance = np.sqrt(2 / math.pi * pooled * (1 - pooled) * (1 / n + 1 / m)).sum() / 2
    return max(0.0, float(np.abs(first / n - second / m).sum() / 2 - by_chance))


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share at one look (Wilson 1927), 95 % unless said otherwise; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, weight = hits / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def largest_difference(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """Upper end of the 95 % interval of the difference of two shares, from their Wilson intervals (Newcombe 1998)."""
    if trials == 0 or other_trials == 0:
        return 1.0
    share, other = hits / trials, other_hits / other_trials
    upper, other_lower = wilson(hits, trials)[1], wilson(other_hits, other_trials)[0]
    return share - other + math.hypot(upper - share, other - other_lower)


@lru_cache(maxsize=4096)
def more_than_chance(trials: int, share: float, level: float) -> int:
    """The least number of hits that so many trials bring with a probability of at most `level`: the exact binomial."""
    mean, deviation = trials * share, math.sqrt(trials * share * (1 - share))
    hits, tail = min(trials, math.ceil(mean + 12 * deviation + 20)), 0.0
    while hits >= 0:
        log = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
        tail += math.exp(log + hits * math.log(share) + (trials - hits) * math.log1p(-share))
        if tail > level:
            break
        hits -= 1
    return hits + 1
