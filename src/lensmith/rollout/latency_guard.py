"""Whether the challenger is too slow, window by window of its requests."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from lensmith.rollout.metrics import ModelCounts, bucket_of, upper_ms
from lensmith.rollout.sequential_tests import more_than_chance

WINDOW = 200
"""Challenger requests in a window, at least: a look later more. Three windows in a row decide after 600 requests."""
WINDOWS, TOO_SLOW = 5, 3
"""Of the last so many windows, how many have to be over: a burst that spoils one or two is no reason to go back."""
TAIL = 0.01
"""Requests that may be slower than the P99, by what P99 means."""
SLOWER = 1.2
"""The challenger's own work may take so much longer than the champion's."""
LEVEL = 0.01
"""Chance that a window is over where the true P99 is just at the limit. Of 200 requests two exceed it on average; eight
of 25 such windows would exceed it by the sample's P99, one of 100 does by the exact binomial bound, and three of five
do in less than one release of 1,000."""


@dataclass(frozen=True)
class LatencyWindow:
    """Some hundred challenger requests in a row.

    Attributes:
        requests: the challenger's, in the window.
        late: of the measured ones, those beyond the SLO, in percent.
        slow: images whose work took longer than 1.2 × the champion's P99, in percent.
        over: both more often than chance allows.
    """

    requests: int
    late: float
    slow: float
    over: bool


class LatencyGuard:
    """The last five windows.

    Args:
        slo_ms: latency within which 99 of 100 answers have to be.
        shadow: no client waits for the challenger: its own work is held against the SLO.
    """

    def __init__(self, slo_ms: float, shadow: bool) -> None:
        self._slo_ms, self._shadow = slo_ms, shadow
        self.latest: deque[LatencyWindow] = deque(maxlen=WINDOWS)
        # How the counts stood when each of these windows began, oldest first; the last is the open one's.
        self._began: deque[tuple[ModelCounts, ModelCounts]] = deque(maxlen=WINDOWS)  # champion, challenger

    def take(self, champion: ModelCounts, challenger: ModelCounts) -> None:
        """Look at the counts so far; close a window where there are enough requests."""
        if not self._began or challenger.requests < self._began[-1][1].requests:
            # The first look, or counts of a replica are gone: what is compared has to begin for both at once.
            self._began.clear()
            self._began.append((_times(champion), _times(challenger)))
            return
        if challenger.requests - self._began[-1][1].requests < WINDOW:
            return
        # The champion over up to five windows: its P99 is the measure, and 200 requests would make a poor one.
        now = _times(champion), _times(challenger)
        self.latest.append(self._judged(now[0].since(self._began[0][0]), now[1].since(self._began[-1][1])))
        self._began.append(now)

    @property
    def over(self) -> int:
        """How many of the last five were over."""
        return sum(window.over for window in self.latest)

    def _judged(self, champion: ModelCounts, challenger: ModelCounts) -> LatencyWindow:
        measured = challenger.work if self._shadow or not challenger.latency else challenger.latency
        late, of = beyond(measured, self._slo_ms), measured.total()
        limit_ms = SLOWER * highest_p99_ms(champion.work)
        slow, images = beyond(challenger.work, limit_ms), challenger.work.total()
        return LatencyWindow(
            challenger.requests,
            late / of if of else 0.0,
            slow / images if images else 0.0,
            too_many(late, of) and champion.work.total() > 0 and too_many(slow, images),
        )


def too_many(hits: int, trials: int) -> bool:
    """Whether more exceed a limit than 1 % and chance explain."""
    return trials > 0 and hits >= more_than_chance(trials, TAIL, LEVEL)


def beyond(histogram: Mapping[int, int], milliseconds: float) -> int:
    """How many took longer, for certain: those in the limit's own bucket (5 % wide) did not."""
    last = bucket_of(milliseconds)
    return sum(count for bucket, count in histogram.items() if bucket > last)


def highest_p99_ms(histogram: Counter[int]) -> float:
    """The upper bound (99 %) of what the true P99 may be, in milliseconds: an order statistic; 0 without requests."""
    total = histogram.total()
    if total == 0:
        return 0.0
    above = max(0, total - more_than_chance(total, 1 - TAIL, LEVEL))
    for bucket in sorted(histogram, reverse=True):
        above -= histogram[bucket]
        if above < 0:
            return upper_ms(bucket)
    return upper_ms(min(histogram))


def _times(counts: ModelCounts) -> ModelCounts:
    """What this guard needs of the counts, as they are now."""
    return ModelCounts(counts.answered, counts.failed, Counter(counts.latency), Counter(counts.work))
