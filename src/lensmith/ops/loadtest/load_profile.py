"""Load profiles: a closed loop of callers that wait for their answers, or an open loop of arrivals at a rate."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

_BLOCK = 4096


@dataclass(frozen=True)
class LoadProfile:
    """The load that is put on a service.

    With a `rate` it is an open loop: requests are due at times drawn in advance, whatever the answers. Without one it
    is a closed loop: each connection sends its next request after the last answer, so a slow service gets fewer.

    Attributes:
        duration_s: measured time in seconds, > 0.
        warmup_s: warm-up before it in seconds, under the same load.
        clients: number of connections; with a rate, the largest number.
        rate: requests per second; None for a closed loop.
        arrivals: `poisson`, as of independent callers, or `constant`.
        timeout_s: seconds after the due time at which a request fails.
        seed: seed of the arrivals.
    """

    duration_s: float
    warmup_s: float = 0.0
    clients: int = 16
    rate: float | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"
    timeout_s: float = 10.0
    seed: int = 0

    @property
    def total_s(self) -> float:
        """Duration of warm-up and measurement in seconds."""
        return self.warmup_s + self.duration_s

    def due_times(self) -> Iterator[float]:
        """Due times of an open loop's requests, rising, in seconds from the start."""
        assert self.rate is not None
        rng, clock = np.random.default_rng(self.seed), 0.0
        while True:
            if self.arrivals == "poisson":
                gaps = rng.exponential(1.0 / self.rate, _BLOCK)
            else:
                gaps = np.full(_BLOCK, 1.0 / self.rate)
            for moment in (clock + np.cumsum(gaps)).tolist():
                if moment >= self.total_s:
                    return
                yield moment
            clock = moment
