"""From records to numbers."""

import pytest

from lensmith.ops.loadtest.load_profile import LoadProfile
from lensmith.ops.loadtest.request_log import CONNECTION, TIMEOUT, RequestLog
from lensmith.ops.loadtest.results import summarize


def record_of(*requests: tuple[float, float, int], ended_s: float = 10.0) -> RequestLog:
    record = RequestLog(ended_s=ended_s)
    for due_s, latency_s, outcome in requests:
        record.add(due_s, latency_s, latency_s, outcome)
    return record


def test_goodput_counts_only_answers_in_time() -> None:
    record = record_of(*[(0.1 * i, 0.05 if i % 2 else 0.5, 200) for i in range(90)])
    found = summarize(record, LoadProfile(duration_s=10), "u", slo_ms=200)
    assert found.ok_per_second == pytest.approx(9.0)
    assert found.goodput_per_second == pytest.approx(4.5)


def test_answers_after_the_end_count_for_latency_and_not_for_rates() -> None:
    record = record_of(*[(5.0, 2.0, 200)] * 10, *[(9.0, 3.0, 200)] * 30)
    found = summarize(record, LoadProfile(duration_s=10, rate=4), "u", slo_ms=5000)
    assert (found.ok, found.ok_per_second, found.goodput_per_second) == (40, 1.0, 1.0)
    assert found.latency_ms is not None
    assert found.latency_ms["p90"] == pytest.approx(3000)


def test_quick_refusals_do_not_improve_the_latency() -> None:
    record = record_of(*[(0.1, 0.1, 200)] * 10, *[(0.1, 0.001, 503)] * 90)
    found = summarize(record, LoadProfile(duration_s=10), "u", slo_ms=200)
    assert found.latency_ms is not None
    assert found.latency_ms["p50"] == pytest.approx(100)
    assert found.refusal_p99_ms == pytest.approx(1)
    assert found.by_status == {"200": 10, "503": 90}


def test_what_was_given_up_makes_the_tail_worse_and_is_no_answer() -> None:
    record = record_of(*[(0.1, 0.1, 200)] * 90, *[(0.1, 5.0, TIMEOUT)] * 10, (0.1, 0.0, CONNECTION))
    found = summarize(record, LoadProfile(duration_s=10), "u", slo_ms=200)
    assert found.latency_ms is not None
    assert found.latency_ms["p99"] == pytest.approx(5000)
    assert (found.timeouts, found.connection_errors, found.answered_per_second) == (10, 1, 9.0)


def test_without_any_answer_there_are_no_percentiles() -> None:
    found = summarize(RequestLog(interrupted=True), LoadProfile(duration_s=10, warmup_s=3), "u", slo_ms=200)
    assert (found.latency_ms, found.seconds, found.requests) == (None, 0.0, 0)
    assert found.warnings == ("Stopped after 0.0 measured seconds.",)


def test_a_client_that_is_the_bottleneck_gives_a_warning() -> None:
    record = record_of(*[(0.1, 0.1, 200)] * 2000)
    record.cpu_s = 9.7
    record.lags_s.extend([0.03] * 100)
    busy, late = summarize(record, LoadProfile(duration_s=10), "u", slo_ms=200).warnings
    assert "97% of a core" in busy
    assert "30 ms late" in late
