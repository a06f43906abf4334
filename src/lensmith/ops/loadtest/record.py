"""Every request of a load test, in 14 bytes each."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

CONNECTION = 1
"""Outcome of a request whose connection could not be had, or was closed before the answer."""
TIMEOUT = 2
"""Outcome of a request that was given up."""
MOST_REQUESTS = 20_000_000
"""A test ends early at so many: 280 MB."""


@dataclass
class Record:
    """What became of each request, in the order in which they ended.

    Attributes:
        due_s: when it was due, in seconds from the start; with a closed load, when it was sent.
        latency_s: from then to the answer's last byte, or to when it was given up.
        service_s: the same from when it was sent; 0 if it never was.
        outcome: the HTTP status, or CONNECTION or TIMEOUT.
        lags_s: by how much the client's own clock was late, each time it looked.
        cpu_s: CPU time that the client took in the measured seconds.
        ended_s: when the last request could have been sent: less than was asked for, if interrupted.
        interrupted: somebody stopped it.
        problem: why the last connection that could not be had was not, in the system's words.
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
        """Note one request."""
        self.due_s.append(due_s)
        self.latency_s.append(latency_s)
        self.service_s.append(service_s)
        self.outcome.append(outcome)
