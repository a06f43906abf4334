"""When requests are due."""

import numpy as np
import pytest

from lensmith.ops.loadtest.load_profile import LoadProfile


def test_arrivals_come_at_the_rate_and_end_with_the_test() -> None:
    for arrivals in ("poisson", "constant"):
        due = list(LoadProfile(duration_s=50, warmup_s=10, rate=200, arrivals=arrivals).due_times())
        assert len(due) == pytest.approx(12_000, rel=0.03)
        assert due == sorted(due)
        assert due[-1] < 60


def test_poisson_arrivals_are_as_irregular_as_independent_callers() -> None:
    gaps = np.diff(list(LoadProfile(duration_s=100, rate=100).due_times()))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)


def test_constant_arrivals_are_even() -> None:
    gaps = np.diff(list(LoadProfile(duration_s=100, rate=100, arrivals="constant").due_times()))
    assert np.allclose(gaps, 0.01)


def test_the_same_seed_gives_the_same_arrivals_and_another_gives_others() -> None:
    one, same, other = (list(LoadProfile(duration_s=1, rate=50, seed=seed).due_times()) for seed in (1, 1, 2))
    assert one == same != other
