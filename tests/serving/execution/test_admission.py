"""The door, and the budget of uploads."""

import pytest

from lensmith.serving.execution.admission import STEP_BYTES, AdmissionControl, UploadBudget
from lensmith.serving.execution.thread_pool import ThreadPool
from lensmith.serving.problems import ProblemError


@pytest.fixture
def pool() -> ThreadPool:
    pool = ThreadPool(threads=1)
    pool.set_estimate(0.05)
    return pool


def test_what_is_predicted_to_be_in_time_passes_and_the_next_one_does_not(pool: ThreadPool) -> None:
    door = AdmissionControl(pool, deadline_s=0.18, image_s=0.05)
    pool.waiting = 2  # and one that comes: 150 ms
    door.check()
    pool.waiting = 3
    with pytest.raises(ProblemError) as refused:
        door.check()
    assert (refused.value.kind, refused.value.headers) == ("overloaded", {"retry-after": "1"})


def test_time_that_is_gone_already_counts(pool: ThreadPool) -> None:
    door = AdmissionControl(pool, deadline_s=0.18, image_s=0.05)
    pool.running = 1  # and one that comes: 100 ms
    door.check(spent_s=0.05)
    with pytest.raises(ProblemError):
        door.check(spent_s=0.1)


def test_a_model_that_is_slower_than_the_deadline_is_still_asked(pool: ThreadPool) -> None:
    door = AdmissionControl(pool, deadline_s=0.01, image_s=0.05)
    assert door.deadline_s == pytest.approx(0.15)
    door.check()


def test_an_idle_thread_is_never_refused_however_dark_the_prediction(pool: ThreadPool) -> None:
    door = AdmissionControl(pool, deadline_s=0.18, image_s=0.05)
    pool.set_estimate(10.0)
    door.check()
    pool.running = 1
    with pytest.raises(ProblemError):
        door.check()


def test_uploads_share_a_budget_and_give_it_back() -> None:
    budget = UploadBudget(10 * STEP_BYTES)
    with budget.share() as one, budget.share() as other:
        one.reserve(6 * STEP_BYTES)
        one.reserve(2 * STEP_BYTES)  # less than it holds
        other.reserve(4 * STEP_BYTES)
        assert budget.held == budget.total
        with pytest.raises(ProblemError) as refused:
            other.reserve(4 * STEP_BYTES + 1)
        assert (refused.value.kind, refused.value.status) == ("no-memory", 503)
        assert budget.held == budget.total
    assert budget.held == 0
