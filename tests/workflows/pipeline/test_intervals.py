"""Intervals: equal to a library's bootstrap, with the coverage that they claim."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from lensmith.evaluation.metrics import calibrate
from lensmith.workflows.pipeline.intervals import accuracy_difference, calibration_error, median, share


def pair(count: int, old_rate: float, lost: float, won: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models' right answers, of which the new one loses and wins these shares."""
    draws = np.random.default_rng(seed).random((2, count))
    old = draws[0] < old_rate
    return np.where(old, draws[1] >= lost, draws[1] < won), old


def test_the_difference_is_that_of_a_paired_bootstrap_over_images() -> None:
    new, old = pair(400, 0.9, 0.08, 0.3, seed=3)
    found = accuracy_difference(new, old, 20_000, seed=0)
    expected = bootstrap(
        (new.astype(float), old.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True, vectorized=True, method="percentile", n_resamples=5000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(new.mean() - old.mean())
    assert found.low == pytest.approx(expected.low, abs=0.005)
    assert found.high == pytest.approx(expected.high, abs=0.005)


def test_pairing_makes_it_narrower_than_two_intervals_would_be() -> None:
    new, old = pair(1000, 0.8, 0.02, 0.05, seed=1)
    found = accuracy_difference(new, old, 5000, seed=0)
    alone = share(int(old.sum()), 1000)
    assert found.high - found.low < 0.6 * (alone.high - alone.low)


def test_an_interval_has_the_coverage_that_it_claims() -> None:
    truth = 0.8 * -0.06 + 0.2 * 0.1
    held = 0
    for seed in range(400):
        found = accuracy_difference(*pair(300, 0.8, 0.06, 0.1, seed=seed), resamples=2000, seed=0)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_models_that_never_differ_are_not_taken_for_equal() -> None:
    same = np.ones(20, dtype=bool)
    few = accuracy_difference(same, same, 2000, seed=0)
    assert (few.low, few.high) == pytest.approx((-0.168, 0.168), abs=0.001)  # 1 − 0.025^(1/20)
    many = np.ones(5000, dtype=bool)
    assert accuracy_difference(many, many, 2000, seed=0).high < 0.001


def test_the_calibration_error_is_the_report_s_own() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.4, 1, 800)
    right = generator.random(800) < confidence
    found = calibration_error(right, confidence, 2000, seed=0)
    assert found.value == pytest.approx(calibrate(right, confidence.astype(np.float32)).error, abs=1e-3)
    assert 0 <= found.low <= found.value <= found.high


def test_a_worse_calibration_is_distinguished_from_an_equal_one() -> None:
    generator = np.random.default_rng(0)
    good = generator.uniform(0.5, 0.9, 1500)
    right = generator.random(1500) < good
    sure = np.full(1500, 0.99)
    worse = calibration_error(right, sure, 2000, seed=0, old=(right, good))
    assert worse.low > 0.15
    same = calibration_error(right, good, 2000, seed=0, old=(right, good))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_seed_settles_what_is_drawn() -> None:
    new, old = pair(200, 0.8, 0.1, 0.2, seed=5)
    assert accuracy_difference(new, old, 2000, seed=4) == accuracy_difference(new, old, 2000, seed=4)
    conf = np.linspace(0.5, 1, 200)
    assert calibration_error(new, conf, 2000, 1) == calibration_error(new, conf, 2000, 1)


def test_a_median_s_interval_comes_from_the_order() -> None:
    found = median([5, 1, 9, 3, 7, 2, 8, 4, 6])
    assert (found.value, found.low, found.high) == (5, 2, 8)
    assert median([4.0]).low == 4.0
