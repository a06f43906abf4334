"""Results of a load test: throughput, goodput, latency percentiles and warnings, from the log of its requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lensmith.core.result import Result
from lensmith.core.stats import percentiles
from lensmith.ops.loadtest.load_profile import LoadProfile
from lensmith.ops.loadtest.request_log import CONNECTION, TIMEOUT, RequestLog

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
BUSY_SHARE = 0.85
"""Share of a core from which on the client itself may be the bottleneck."""
LATE_MS = 5.0
"""Largest delay of the client's own clock without a warning; or a tenth of the measured latency."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LoadTestResult(Result):
    """Result of `lensmith bench`, over the measured time.

    Percentiles are of requests due in this time that got a 2xx answer, and of those that timed out, which count with
    the time until then. Rates count answers that arrived in this time.

    Attributes:
        mode: `closed` or `open` loop.
        clients: number of connections; with an open loop, the largest number.
        offered_per_second: due requests per second of an open loop; None for a closed one.
        answered_per_second: answers per second, with any status.
        ok_per_second: 2xx answers per second.
        goodput_per_second: 2xx answers per second within `slo_ms`.
        seconds: measured time in seconds.
        requests: number of requests due in this time.
        ok: number of them with 2xx answers.
        by_status: HTTP status → number of these requests.
        connection_errors: number of requests without a connection, or closed before the answer.
        timeouts: number of requests that timed out.
        latency_ms: p50, p90, p99, p99.9 and max in milliseconds from the due time; None without answers.
        from_sending_ms: the same from the sending time, which hides waiting in an open loop; None without answers.
        refusal_p99_ms: 99th percentile of answers with another status, in milliseconds; None without any.
        client_cpu: share of one core that the client used.
        client_late_ms: 99th percentile of the delay of the client's own clock, in milliseconds.
        warnings: reasons to doubt the numbers, a sentence each.
    """

    url: str
    mode: str
    clients: int
    offered_per_second: float | None
    answered_per_second: float
    ok_per_second: float
    goodput_per_second: float
    slo_ms: float
    seconds: float
    requests: int
    ok: int
    by_status: dict[str, int]
    connection_errors: int
    timeouts: int
    latency_ms: dict[str, float] | None
    from_sending_ms: dict[str, float] | None
    refusal_p99_ms: float | None
    client_cpu: float
    client_late_ms: float
    warnings: tuple[str, ...]
    interrupted: bool


@dataclass(frozen=True)
class RequestTable:
    """A request log as arrays of N requests, including the warm-up.

    Attributes:
        due_s: float64 (N,), due times in seconds from the start of the measurement; negative in the warm-up.
        latency_s: float64 (N,), seconds from the due time.
        service_s: float64 (N,), seconds from the sending time.
        outcome: int16 (N,), HTTP status, CONNECTION or TIMEOUT.
    """

    due_s: _Floats
    latency_s: _Floats
    service_s: _Floats
    outcome: npt.NDArray[np.int16]

    @classmethod
    def of(cls, log: RequestLog, warmup_s: float) -> RequestTable:
        """Copy a log into arrays."""
        due, latency, service = (np.array(column, np.float64) for column in (log.due_s, log.latency_s, log.service_s))
        return cls(due - warmup_s, latency, service, np.array(log.outcome, np.int16))

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """bool (N,), whether each request got a 2xx answer."""
        return (self.outcome >= 200) & (self.outcome < 300)

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """bool (N,), whether each request counts in the percentiles: due after the warm-up, and 2xx or timed out."""
        counted: npt.NDArray[np.bool_] = (self.due_s >= 0) & (self.ok | (self.outcome == TIMEOUT))
        return counted


def summarize(log: RequestLog, load: LoadProfile, url: str, slo_ms: float) -> LoadTestResult:
    """Compute the result of a load test from the log of its requests."""
    requests = RequestTable.of(log, load.warmup_s)
    seconds = max(0.0, log.ended_s - load.warmup_s)
    due = requests.due_s >= 0
    ended = requests.due_s + requests.latency_s
    arrived = (ended >= 0) & (ended <= seconds) & (requests.outcome >= 100)
    good = arrived & requests.ok & (requests.latency_s * 1e3 <= slo_ms)
    statuses, counts = np.unique(requests.outcome[due & (requests.outcome >= 100)], return_counts=True)
    refused = requests.latency_s[due & (requests.outcome >= 100) & ~requests.ok]
    latency = _latency_percentiles(requests.latency_s[requests.counted])
    late_ms = float(np.percentile(log.lags_s, 99)) * 1e3 if log.lags_s else 0.0
    cpu = log.cpu_s / seconds if seconds else 0.0
    return LoadTestResult(
        url=url,
        mode="open" if load.rate else "closed",
        clients=load.clients,
        offered_per_second=_rate(due, seconds) if load.rate else None,
        answered_per_second=_rate(arrived, seconds),
        ok_per_second=_rate(arrived & requests.ok, seconds),
        goodput_per_second=_rate(good, seconds),
        slo_ms=slo_ms,
        seconds=seconds,
        requests=int(due.sum()),
        ok=int((due & requests.ok).sum()),
        by_status={str(status): int(count) for status, count in zip(statuses, counts, strict=True)},
        connection_errors=int((due & (requests.outcome == CONNECTION)).sum()),
        timeouts=int((due & (requests.outcome == TIMEOUT)).sum()),
        latency_ms=latency,
        from_sending_ms=_latency_percentiles(requests.service_s[requests.counted]),
        refusal_p99_ms=float(np.percentile(refused, 99)) * 1e3 if refused.size else None,
        client_cpu=cpu,
        client_late_ms=late_ms,
        warnings=_warnings(log, seconds, cpu, late_ms, latency),
        interrupted=log.interrupted,
    )


def _rate(which: npt.NDArray[np.bool_], seconds: float) -> float:
    return float(which.sum()) / seconds if seconds else 0.0


def _latency_percentiles(latencies_s: _Floats) -> dict[str, float] | None:
    if not latencies_s.size:
        return None
    return dict(zip(PERCENTILES, percentiles(latencies_s * 1e3, list(PERCENTILES.values())), strict=True))


def _warnings(
    log: RequestLog, seconds: float, cpu: float, late_ms: float, latency: dict[str, float] | None
) -> tuple[str, ...]:
    warnings = []
    if log.interrupted:
        warnings.append(f"Stopped after {seconds:.1f} measured seconds.")
    if cpu > BUSY_SHARE:
        warnings.append(f"The client took {cpu:.0%} of a core, so it may itself have been the bottleneck.")
    if late_ms > max(LATE_MS, 0.1 * (latency["p99"] if latency else 0.0)):
        warnings.append(
            f"The client's own clock was {late_ms:.0f} ms late (p99), which is in the latencies: another process used "
            "the processor. Run the client on another machine."
        )
    if latency and log.outcome and len(log.outcome) < 1000:
        warnings.append("Fewer than 1,000 requests: p99 and beyond are estimated from a handful.")
    return tuple(warnings)
