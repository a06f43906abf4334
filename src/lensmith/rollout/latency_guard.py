"""Latency guard: whether the challenger is too slow, in windows of its requests."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from lensmith.rollout.metrics import ModelCounts, bucket_of, order_statistic_ms
from lensmith.rollout.sequential_tests import more_than_chance

WINDOW = 200
"""Least number of challenger requests in a window. Three windows in a row decide after 600 requests."""
WINDOWS, TOO_SLOW = 5, 3
"""Length of the history, and how many windows of it have to be too slow: a burst that spoils one or two is no reason
to roll back."""
TAIL = 0.01
"""Share of requests that may be slower than the P99, by definition."""
SLOWER = 1.2
"""Factor by which the challenger's work may take longer than the champion's."""
LEAST_COMPARED = 20
"""Champion requests below which there is nothing to compare with, and the service's objectives alone count: where one
caller's hash falls to the challenger, or the challenger gets every request, the champion may get none."""
LEVEL = 0.01
"""Chance that a window is too slow where the true P99 is just at the limit. Of 200 requests two exceed it on average;
eight of 25 such windows would exceed it by the sample's P99, one of 100 does by the exact binomial bound, and three of
five do in less than one rollout of 1,000."""


@dataclass(frozen=True)
class LatencyWindow:
    """Some hundred successive challenger requests.

    Attributes:
        requests: number of requests whose time was taken.
        late: share of them beyond the SLO, 0..1.
        slow: share of images whose work took longer than 1.2 × the champion's P99, 0..1; None where the champion
            answered too few meanwhile to compare with.
        over: True where late requests and slow work are both more frequent than chance allows; without a comparison
            late requests suffice.
    """

    requests: int
    late: float
    slow: float | None
    over: bool


class LatencyGuard:
    """Collects counts into windows, and keeps the last five.

    Args:
        slo_ms: latency that 99 of 100 requests must not exceed, in milliseconds.
        shadow: True in shadow mode, where no client waits for the challenger: its work is compared with the SLO.

    Attributes:
        latest: the last windows, oldest first.
    """

    def __init__(self, slo_ms: float, shadow: bool) -> None:
        self._slo_ms, self._shadow = slo_ms, shadow
        self.latest: deque[LatencyWindow] = deque(maxlen=WINDOWS)
        # Counts at the beginning of each of these windows, oldest first; the last belongs to the open window.
        self._began: deque[tuple[ModelCounts, ModelCounts]] = deque(maxlen=WINDOWS)  # champion, challenger

    def update(self, champion: ModelCounts, challenger: ModelCounts) -> None:
        """Take the counts since the rollout began, and close a window where it has enough requests."""
        if not self._began or challenger.requests < self._began[-1][1].requests:
            # The first update, or a replica's counts are gone: both models' windows have to begin at the same time.
            self._began.clear()
            self._began.append((_times(champion), _times(challenger)))
            return
        if challenger.requests - self._began[-1][1].requests < WINDOW:
            return
        # The champion over up to five windows: its P99 is the reference, and 200 requests would make a poor one.
        now = _times(champion), _times(challenger)
        self.latest.append(self._window(now[0].since(self._began[0][0]), now[1].since(self._began[-1][1])))
        self._began.append(now)

    @property
    def over(self) -> int:
        """Number of slow windows among the last five."""
        return sum(window.over for window in self.latest)

    def _window(self, champion: ModelCounts, challenger: ModelCounts) -> LatencyWindow:
        measured = challenger.work if self._shadow or not challenger.latency else challenger.latency
        late, of = beyond(measured, self._slo_ms), measured.total()
        late_share, is_late = late / of if of else 0.0, too_many(late, of)
        if champion.work.total() < LEAST_COMPARED:
            return LatencyWindow(of, late_share, None, is_late)
        limit_ms = SLOWER * highest_p99_ms(champion.work)
        slow, images = beyond(challenger.work, limit_ms), challenger.work.total()
        return LatencyWindow(of, late_share, slow / images if images else 0.0, is_late and too_many(slow, images))


def too_many(hits: int, trials: int) -> bool:
    """Whether more trials exceed a limit than 1 % and chance explain."""
    return trials > 0 and hits >= more_than_chance(trials, TAIL, LEVEL)


def beyond(histogram: Mapping[int, int], milliseconds: float) -> int:
    """Number of entries that certainly took longer; those in the limit's own bucket (5 % wide) do not count."""
    last = bucket_of(milliseconds)
    return sum(count for bucket, count in histogram.items() if bucket > last)


def highest_p99_ms(histogram: Counter[int]) -> float:
    """The upper 99 % confidence bound of the true P99, in milliseconds: an order statistic; 0 without requests."""
    total = histogram.total()
    return order_statistic_ms(histogram, min(total, more_than_chance(total, 1 - TAIL, LEVEL))) if total else 0.0


def _times(counts: ModelCounts) -> ModelCounts:
    """A snapshot of the counts that this guard needs."""
    return ModelCounts(counts.answered, counts.failed, Counter(counts.latency), Counter(counts.work))
