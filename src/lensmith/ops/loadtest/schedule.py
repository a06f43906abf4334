"""How a load comes: a number of callers that each wait for their answer, or arrivals that wait for nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

_BLOCK = 4096


@dataclass(frozen=True)
class Load:
    """What is done to a service.

    With a `rate` the load is open: requests are due at times drawn beforehand, whatever the answers. Without one it is
    closed: each connection sends its next request when the last is answered, so a slow service is asked less often.

    Attributes:
        duration_s: seconds that are measured, > 0.
        warmup_s: seconds before them, under the same load.
        clients: connections; with a rate, at most so many.
        rate: requests a second; None for a closed load.
        arrivals: `poisson`, as independent callers come, or `constant`.
        timeout_s: seconds after which a request is given up, from when it was due.
        seed: of the arrivals.
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
        """Seconds in which requests are sent."""
        return self.warmup_s + self.duration_s

    def due(self) -> Iterator[float]:
        """Seconds from the start at which requests are due, rising, as long as requests are sent; needs a rate."""
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
