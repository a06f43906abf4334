"""From the record of every request to the numbers that are reported."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.ops.loadtest.record import CONNECTION, TIMEOUT, Record
from lensmith.ops.loadtest.schedule import Load

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
BUSY_SHARE = 0.85
"""Share of a core from which on the client cannot be trusted to keep up."""
LATE_MS = 5.0
"""So late may the client's own clock be, or a tenth of the latency that it measured."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What a load test found, over the measured seconds.

    Percentiles are of requests due in these seconds that got a 2xx answer, and of those that were given up, which count
    with the time that was waited for them. Rates count answers that arrived in these seconds.

    Attributes:
        url: what was asked.
        mode: `closed` or `open`.
        clients: connections; with an open load, at most so many.
        offered_per_second: of an open load, requests that were due; None of a closed one.
        answered_per_second: answers of whatever status.
        ok_per_second: 2xx answers.
        goodput_per_second: 2xx answers within `slo_ms`.
        slo_ms: the latency that is still good.
        seconds: that were measured.
        requests: that were due in them.
        ok: 2xx answers among these.
        by_status: HTTP status → answers among these.
        connection_errors: no connection, or closed before the answer.
        timeouts: given up.
        latency_ms: p50, p90, p99, p99.9 and max; counted from when a request was due. None without answers.
        from_sending_ms: the same counted from when it was sent, which with an open load hides waiting. None without
            answers.
        refusal_p99_ms: 99th percentile of answers of another status; None without any.
        client_cpu: share of one core that the client took.
        client_late_ms: 99th percentile of how late the client's own clock was.
        warnings: what makes these numbers less than they seem.
        interrupted: it was stopped before its end.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Requests:
    """A record as arrays, one element a request, float64 (N,); those of the warm-up too.

    Attributes:
        due_s: since the measured seconds began; negative in the warm-up.
        latency_s: from when it was due.
        service_s: from when it was sent.
        outcome: int16 (N,); see `Record`.
    """

    due_s: _Floats
    latency_s: _Floats
    service_s: _Floats
    outcome: npt.NDArray[np.int16]

    @classmethod
    def of(cls, record: Record, warmup_s: float) -> Requests:
        """Copy them out of a record."""
        due, latency, service = (
            np.array(column, dtype=np.float64) for column in (record.due_s, record.latency_s, record.service_s)
        )
        return cls(due - warmup_s, latency, service, np.array(record.outcome, dtype=np.int16))

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Which got a 2xx answer."""
        return (self.outcome >= 200) & (self.outcome < 300)

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """Which count in the percentiles: answered with 2xx, or given up; due in the measured seconds."""
        judged: npt.NDArray[np.bool_] = (self.due_s >= 0) & (self.ok | (self.outcome == TIMEOUT))
        return judged


def measure(record: Record, load: Load, url: str, slo_ms: float) -> Measured:
    """The numbers of a record."""
    requests = Requests.of(record, load.warmup_s)
    seconds = max(0.0, record.ended_s - load.warmup_s)
    due = requests.due_s >= 0
    ended = requests.due_s + requests.latency_s
    arrived = (ended >= 0) & (ended <= seconds) & (requests.outcome >= 100)
    good = arrived & requests.ok & (requests.latency_s * 1e3 <= slo_ms)
    statuses, counts = np.unique(requests.outcome[due & (requests.outcome >= 100)], return_counts=True)
    refused = requests.latency_s[due & (requests.outcome >= 100) & ~requests.ok]
    latency = _percentiles(requests.latency_s[requests.judged])
    late_ms = float(np.percentile(record.lags_s, 99)) * 1e3 if record.lags_s else 0.0
    cpu = record.cpu_s / seconds if seconds else 0.0
    return Measured(
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
        from_sending_ms=_percentiles(requests.service_s[requests.judged]),
        refusal_p99_ms=float(np.percentile(refused, 99)) * 1e3 if refused.size else None,
        client_cpu=cpu,
        client_late_ms=late_ms,
        warnings=_warnings(record, seconds, cpu, late_ms, latency),
        interrupted=record.interrupted,
    )


def _rate(which: npt.NDArray[np.bool_], seconds: float) -> float:
    return float(which.sum()) / seconds if seconds else 0.0


def _percentiles(latencies_s: _Floats) -> dict[str, float] | None:
    if not latencies_s.size:
        return None
    # No interpolation: a number that some request has really seen.
    found = np.percentile(latencies_s * 1e3, list(PERCENTILES.values()), method="higher")
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


def _warnings(
    record: Record, seconds: float, cpu: float, late_ms: float, latency: dict[str, float] | None
) -> tuple[str, ...]:
    said = []
    if record.interrupted:
        said.append(f"Stopped after {seconds:.1f} measured seconds.")
    if cpu > BUSY_SHARE:
        said.append(f"The client took {cpu:.0%} of a core, so it may itself have been the limit.")
    if late_ms > max(LATE_MS, 0.1 * (latency["p99"] if latency else 0.0)):
        said.append(
            f"The client's own clock was {late_ms:.0f} ms late (p99), which is in the latencies: something else had "
            "the processor. Run the client on another machine."
        )
    if latency and record.outcome and len(record.outcome) < 1000:
        said.append("Fewer than 1,000 requests: p99 and beyond rest on a handful.")
    return tuple(said)
