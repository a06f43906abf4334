"""Sequential tests keep their error rates, however often the counts are tested."""

import math

import numpy as np
import pytest

from lensmith.rollout.sequential_tests import (
    largest_difference,
    least_shift,
    log_evidence,
    log_evidence_of_shift,
    lower_bound,
    more_than_chance,
    shift,
)

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_testing_after_every_single_trial_raises_no_more_false_alarms(share: float) -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        hits = random.random(300) < share
        so_far = np.cumsum(hits)
        alarms += any(
            log_evidence(int(so_far[place]), place + 1 - int(so_far[place]), share) >= math.log(20)
            for place in np.flatnonzero(hits)
        )
    assert alarms / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_evidence_has_a_mean_of_one_where_nothing_is_wrong() -> None:
    trials, share = 50, 0.1
    ratios = [math.exp(log_evidence(hits, trials - hits, share)) for hits in range(trials + 1) if hits > share * trials]
    chances = [scipy_stats.binom.pmf(hits, trials, share) for hits in range(trials + 1) if hits > share * trials]
    assert 0 < float(np.dot(ratios, chances)) <= 1


@pytest.mark.parametrize(("hits", "others", "share"), [(0, 0, 0.5), (5, 5, 0), (5, 5, 1), (1, 9, 0.1), (0, 100, 0.1)])
def test_there_is_none_for_what_was_expected(hits: int, others: int, share: float) -> None:
    assert log_evidence(hits, others, share) == -math.inf


def test_it_grows_with_the_difference() -> None:
    found = [log_evidence(hits, 100 - hits, 0.1) for hits in (15, 20, 30, 60)]
    assert found == sorted(found)


def test_the_lower_bound_is_below_what_was_seen() -> None:
    assert 0.03 < lower_bound(60, 1000, 0.005) < 0.06
    assert lower_bound(0, 1000, 0.005) == 0
    assert lower_bound(0, 0, 0.005) == 0


@pytest.mark.parametrize("classes", [2, 40])
def test_equal_distributions_are_seldom_distinguished(classes: int) -> None:
    random = np.random.default_rng(1)
    shares = 1 / np.arange(1, classes + 1)
    shares /= shares.sum()
    alarms = 0
    for _ in range(100):
        first = random.multinomial(40, shares, 25).cumsum(axis=0).astype(float)
        second = random.multinomial(120, shares, 25).cumsum(axis=0).astype(float)
        alarms += any(log_evidence_of_shift(a, b) >= math.log(20) for a, b in zip(first, second, strict=True))
    assert alarms / 100 <= 0.05


def test_other_distributions_are_distinguished() -> None:
    assert log_evidence_of_shift(np.array([80.0, 20.0]), np.array([500.0, 500.0])) > math.log(1000)
    assert log_evidence_of_shift(np.zeros(2), np.array([5.0, 5.0])) == -math.inf


def test_many_classes_do_not_make_a_shift_of_chance() -> None:
    random = np.random.default_rng(2)
    first = random.multinomial(500, np.full(100, 0.01)).astype(float)
    second = random.multinomial(4500, np.full(100, 0.01)).astype(float)
    assert shift(first, second) < 0.03
    assert shift(np.array([500.0, 0.0]), np.array([0.0, 500.0])) > 0.95
    assert shift(np.zeros(2), np.ones(2)) == 0


def test_a_small_shift_seldom_looks_like_a_large_one() -> None:
    # The champion takes 6 % of the images for blue that are green, and has answered a quarter of the requests.
    random = np.random.default_rng(3)
    first = random.multinomial(30, [0.64, 0.26, 0.10], (400, 60)).cumsum(axis=1).astype(float)
    second = random.multinomial(10, [0.64, 0.20, 0.16], (400, 60)).cumsum(axis=1).astype(float)
    late = [list(zip(a[16:], b[16:], strict=True)) for a, b in zip(first, second, strict=True)]
    assert sum(any(shift(*pair) > 0.1 for pair in pairs) for pairs in late) > 10
    assert sum(any(least_shift(*pair) > 0.1 for pair in pairs) for pairs in late) <= 1
    assert least_shift(np.array([500.0, 0.0]), np.array([0.0, 500.0])) > 0.95
    assert 0.1 < least_shift(np.array([325.0, 25, 150]), np.array([108.0, 52, 7])) < 0.3
    assert least_shift(np.zeros(2), np.ones(2)) == 0


def test_the_difference_of_two_shares_is_bounded_as_published() -> None:
    # Newcombe 1998, table II, example (a): 56/70 against 48/80, method 10.
    assert largest_difference(56, 70, 48, 80) == pytest.approx(0.3339, abs=1e-4)
    assert largest_difference(0, 0, 1, 10) == 1


@pytest.mark.parametrize("trials", [1, 20, 200, 5000, 300_000])
@pytest.mark.parametrize("share", [0.01, 0.99])
def test_more_than_chance_is_the_exact_binomial(trials: int, share: float) -> None:
    least = more_than_chance(trials, share, 0.01)
    assert scipy_stats.binom.sf(least - 1, trials, share) <= 0.01 * (1 + 1e-6)
    assert scipy_stats.binom.sf(least - 2, trials, share) > 0.01 * (1 - 1e-6)
