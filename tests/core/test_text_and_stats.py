"""Lists in sentences, first lines of errors, Wilson and percentile intervals."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from lensmith.core.stats import first_as_good_as_the_best, percentile_interval, percentiles, wilson
from lensmith.core.text import first_line, listed


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a, b"),
        (("a", "b", "c"), "a, b and 1 more"),
        ((1, 2, 3, 4), "1, 2 and 2 more"),
    ],
)
def test_a_list_names_the_first_and_counts_the_rest(items: tuple[object, ...], expected: str) -> None:
    assert listed(items, most=2) == expected


@pytest.mark.parametrize(
    ("error", "expected"), [(ValueError("first.\nsecond"), "first"), (OSError(), "OSError"), (KeyError("k"), "'k'")]
)
def test_the_first_line_of_an_error(error: Exception, expected: str) -> None:
    assert first_line(error) == expected


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_wilson_is_the_interval_that_scipy_computes(level: float) -> None:
    for hits, trials in ((0, 1), (1, 1), (0, 30), (30, 30), (7, 12), (999, 1000)):
        expected = binomtest(hits, trials).proportion_ci(level, method="wilson")
        assert wilson(hits, trials, level) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0, level) == (0.0, 1.0)  # nothing is known without trials


def test_a_percentile_interval_holds_its_share_of_the_draws() -> None:
    drawn = np.random.default_rng(0).normal(size=(100_000, 2)) * [1, 10]
    low, high = percentile_interval(drawn)
    z = 1.959964
    assert np.allclose([low, high], [[-z, -10 * z], [z, 10 * z]], rtol=0.02)


def test_percentiles_are_observed_values() -> None:
    assert percentiles([3.0, 1.0, 2.0, 10.0], (50, 99, 100)) == [3.0, 10.0, 10.0]
    assert math.isclose(percentiles([1.5], (50,))[0], 1.5)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"plain": [0.5, 0.4, 0.6], "extreme": [0.5, 0.4, 0.6]}, "plain"),  # equal
        ({"plain": [0.5, 0.4, 0.6], "extreme": [0.1, 0.6, 0.7]}, "plain"),  # by one lucky case
        ({"plain": [0.5, 0.4, 0.6], "extreme": [0.4, 0.3, 0.5]}, "extreme"),  # in each case
        ({"plain": [0.5, 0.4, 0.6], "better": [0.3, 0.2, 0.4], "extreme": [0.3, 0.1, 0.45]}, "better"),
        ({"plain": [0.5], "extreme": [0.1]}, "plain"),  # one case proves nothing
        ({"plain": [math.nan, 0.1], "extreme": [0.5, 0.5]}, "extreme"),
        ({"plain": [math.nan], "extreme": [math.nan]}, "plain"),
    ],
)
def test_a_candidate_is_left_only_for_one_that_is_better_beyond_chance(
    losses: dict[str, list[float]], expected: str
) -> None:
    assert first_as_good_as_the_best({name: np.array(loss) for name, loss in losses.items()}) == expected
