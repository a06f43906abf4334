"""Log of every request of a load test, in 14 bytes each."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

CONNECTION = 1
"""Outcome of a request without a connection, or whose connection was closed before the answer."""
TIMEOUT = 2
"""Outcome of a request that took longer than the timeout."""
MAX_REQUESTS = 20_000_000
"""A test ends early after so many requests, which take 280 MB."""


@dataclass
class RequestLog:
    """Times and outcome of each request, in the order in which they ended.

    Attributes:
        due_s: due time of each request in seconds from the start; with a closed loop, its sending time.
        latency_s: seconds from the due time to the answer's last byte, or to the timeout.
        service_s: seconds from sending to the same end; 0 for a request that was never sent.
        outcome: HTTP status, or CONNECTION or TIMEOUT.
        lags_s: delay of the client's own clock in seconds, at each check.
        cpu_s: CPU time of the client during the measurement in seconds.
        ended_s: end of sending in seconds from the start; earlier than planned if interrupted.
        interrupted: whether the user stopped the test.
        problem: the system's message about the last failed connection.
    """

    due_s: array[float] = field(default_factory=lambda: array("f"))
    latency_s: array[float] = field(default_factory=lambda: array("f"))
    service_s: array[float] = field(default_factory=lambda: array("f"))
    outcome: array[int] = field(default_factory=lambda: array("h"))
    lags_s: array[float] = field(default_factory=lambda: array("f"))
    cpu_s: float = 0.0
    ended_s: float = 0.0
    interrupted: bool = False
    problem: str = ""

    def add(self, due_s: float, latency_s: float, service_s: float, outcome: int) -> None:
        """Add one request."""
        self.due_s.append(due_s)
        self.latency_s.append(latency_s)
        self.service_s.append(service_s)
        self.outcome.append(outcome)
