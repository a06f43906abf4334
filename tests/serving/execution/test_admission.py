"""Admission control, and the budget of uploads."""

import asyncio
from typing import Any

import pytest

from lensmith.serving.execution import admission as module
from lensmith.serving.execution.admission import STEP_BYTES, AdmissionControl, UploadBudget
from lensmith.serving.execution.thread_pool import ThreadPool
from lensmith.serving.problems import ProblemError


@pytest.fixture
def admission() -> AdmissionControl:
    pool = ThreadPool(threads=1)
    pool.set_estimate(0.05)
    admission = AdmissionControl(deadline_s=0.18)
    admission.use(pool)
    return admission


@pytest.mark.parametrize(
    ("running", "waiting", "spent_s", "admitted"),
    [
        (0, 2, 0.0, True),  # two and the new one: 150 ms
        (0, 3, 0.0, False),
        (1, 0, 0.05, True),  # 100 ms, and 50 that are gone
        (1, 0, 0.1, False),
    ],
)
def test_what_is_predicted_to_be_in_time_is_admitted(
    admission: AdmissionControl, running: int, waiting: int, spent_s: float, admitted: bool
) -> None:
    admission.pool.running, admission.pool.waiting = running, waiting
    assert admission.admits(spent_s) is admitted


def test_a_refusal_is_delayed_once_and_says_when_to_try_again(
    admission: AdmissionControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    state: dict[str, Any] = {}
    assert asyncio.run(admission.admit(state)) == 0.0
    admission.pool.waiting = 3
    for _ in range(2):
        with pytest.raises(ProblemError) as refused:
            asyncio.run(admission.admit(state))
        assert (refused.value.kind, refused.value.headers) == ("overloaded", {"retry-after": "1"})
    assert delays == [state["delay_s"]]


def test_a_model_that_is_slower_than_the_deadline_is_still_asked(admission: AdmissionControl) -> None:
    slow = AdmissionControl(deadline_s=0.01, adapts=True)
    slow.use(admission.pool)
    assert slow.deadline_s == pytest.approx(0.15)
    assert slow.admits()
    assert "150 ms" in slow.describe()


@pytest.mark.parametrize("image_s", [0.0, 0.05, 0.1, 0.18, 0.5, 60.0])
def test_a_deadline_that_somebody_has_stated_stays_whatever_is_measured(
    admission: AdmissionControl, image_s: float
) -> None:
    admission.set_image_time(image_s)
    assert admission.deadline_s == 0.18
    assert ("cannot be kept" in admission.describe()) == (image_s > 0.18)
    assert "deadline 180 ms" in admission.describe()


@pytest.mark.parametrize(
    ("deadline_ms", "shown"), [(0.2, "0.2"), (7.5, "7.5"), (180, "180"), (182.4, "182.4"), (60_000, "60,000")]
)
def test_the_deadline_is_told_as_it_was_stated(deadline_ms: float, shown: str) -> None:
    assert AdmissionControl(deadline_ms / 1000).describe() == f"deadline {shown} ms"


def test_an_idle_thread_is_never_refused_however_slow_the_prediction(admission: AdmissionControl) -> None:
    admission.pool.set_estimate(10.0)
    assert admission.admits()
    admission.pool.running = 1
    assert not admission.admits()


def test_uploads_share_a_budget_and_give_it_back() -> None:
    budget = UploadBudget(10 * STEP_BYTES)
    with budget.share() as one, budget.share() as other:
        one.reserve(6 * STEP_BYTES)
        one.reserve(2 * STEP_BYTES)  # less than it has reserved
        other.reserve(4 * STEP_BYTES)
        assert budget.reserved == budget.total
        with pytest.raises(ProblemError) as refused:
            other.reserve(4 * STEP_BYTES + 1)
        assert (refused.value.kind, refused.value.status) == ("no-memory", 503)
        assert budget.reserved == budget.total
    assert budget.reserved == 0
