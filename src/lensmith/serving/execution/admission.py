"""Admission control with back-pressure: requests that would be answered too late are refused; the upload budget."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from lensmith.imaging.decode_cost import DecodeCost
from lensmith.serving.execution.thread_pool import Pool, ThreadPool
from lensmith.serving.problems import ProblemError

RETRY = {"retry-after": "1"}
REFUSAL_DELAY_S = 0.1
"""Seconds until a request is refused. A proxy that then asks another replica is still in time."""
LEAST_DEADLINE_IMAGES = 3.0
"""A default deadline is at least the time of so many images on an idle machine; else few would be answered."""
STEP_BYTES = 65_536
"""Bytes by which an upload's share of the budget grows: what the server buffers ahead of the reader."""


class AdmissionControl:
    """Back-pressure before a pool: admits what is predicted to be answered within its deadline.

    Args:
        deadline_s: seconds that a request may take once its upload has arrived.
        adapts: whether a slow model makes the deadline longer; never where somebody has stated it.

    Attributes:
        pool: the pool that classifies what is admitted; one without threads until `use` is called.
        deadline_s: seconds that a request may take.
    """

    def __init__(self, deadline_s: float, adapts: bool = False) -> None:
        self.pool: Pool = ThreadPool(0)
        self.deadline_s = self._configured_s = deadline_s
        self._adapts = adapts
        self._image_s = 0.0

    def use(self, pool: Pool) -> None:
        """Admit to `pool`, whose time per image has been measured."""
        self.pool = pool
        self.set_image_time(pool.predicted_s())

    def set_image_time(self, image_s: float) -> None:
        """Take note that an image of the present model takes `image_s` seconds alone."""
        self._image_s = image_s
        if self._adapts:
            self.deadline_s = max(self._configured_s, LEAST_DEADLINE_IMAGES * image_s)

    def describe(self) -> str:
        """The deadline in words, with what the measured time of an image means for it."""
        shown = f"deadline {_ms(self.deadline_s)}"
        image = f"an image takes {self._image_s * 1000:.0f} ms"
        if self.deadline_s > self._configured_s:
            return f"{shown} (as none is set and {image}; --deadline-ms sets it)"
        if self._image_s > self.deadline_s:
            return f"{shown}, which cannot be kept: {image}; set a longer one with --deadline-ms"
        return shown

    def deadline_of(self, cost: DecodeCost | None) -> float:
        """Seconds that a request may take: a default deadline is longer for a large picture, as for a slow model.

        Args:
            cost: cost of decoding its image, where that is large.
        """
        if cost is None or not self._adapts:
            return self.deadline_s
        return max(self.deadline_s, LEAST_DEADLINE_IMAGES * (self._image_s + self.pool.decode_times.predicted_s(cost)))

    def admits(self, spent_s: float = 0.0, cost: DecodeCost | None = None, body_read: bool = True) -> bool:
        """Whether a request would be answered in time.

        Args:
            spent_s: seconds of its time that it has used already.
            cost: cost of decoding its image, where that is large and known already.
            body_read: whether it is known that the image is not large where there is no cost.
        """
        deadline_s = self.deadline_of(cost)
        if self._adapts and not body_read:  # its picture may be as large as those before it
            deadline_s += self.pool.decoding_ahead_s()
        # Where a thread is idle, trying is worth it: otherwise a prediction that became too long would never recover.
        return self.pool.idle() or spent_s + self.pool.predicted_s(cost=cost) <= deadline_s

    async def admit(
        self, state: MutableMapping[str, Any], cost: DecodeCost | None = None, body_read: bool = True
    ) -> float:
        """Admit a request, or refuse it after a delay in which the load may have gone.

        A client that asks again as soon as it is refused would otherwise take the cores from those that are answered.

        Args:
            state: the request's state; `delay_s` in it is how long the request was delayed, at most once.
            cost: cost of decoding its image, where that is large.
            body_read: whether its body has arrived, so that the cost is known.

        Returns:
            Seconds of the request's time that its delay has used.

        Raises:
            ProblemError: overloaded.
        """
        delay_s: float = state.get("delay_s", 0.0)
        if self.admits(delay_s, cost, body_read):
            return delay_s
        if not delay_s:
            state["delay_s"] = delay_s = min(REFUSAL_DELAY_S, self.deadline_s / 2)
            await asyncio.sleep(delay_s)
            if self.admits(delay_s, cost, body_read):
                return delay_s
        raise ProblemError(
            "overloaded",
            f"The queued requests would take more than the {_ms(self.deadline_of(cost))} that an answer may take. "
            f"{_advice(cost)}Ask again in a moment.",
            RETRY,
        )


def _ms(seconds: float) -> str:
    """Seconds in words: a stated deadline of 7.5 ms is not one of 8."""
    return f"{round(seconds * 1000, 1 if seconds > 0.01 else 4):,.10g} ms"


def _advice(cost: DecodeCost | None) -> str:
    if cost is None:
        return ""
    return f"The image has {cost.megapixels:.1f} megapixels: scaled down, it would take less of that. "


class UploadBudget:
    """Limits the memory of unfinished uploads to `total` bytes, of which `reserved` are in use."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0

    def share(self) -> UploadShare:
        """The share of one upload, empty at first; a context manager that gives it back."""
        return UploadShare(self)


class UploadShare:
    """Bytes that one upload has reserved of a budget."""

    __slots__ = ("_budget", "_reserved")

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self._reserved = 0

    def reserve(self, wanted: int) -> None:
        """Reserve at least `wanted` bytes in all, before they are read.

        Raises:
            ProblemError: the budget has not so many left.
        """
        more = wanted - self._reserved
        if more <= 0:
            return
        if self._budget.reserved + more > self._budget.total:
            raise ProblemError(
                "no-memory", "Uploads under way take all the memory set aside for them. Ask again in a moment.", RETRY
            )
        self._budget.reserved += more
        self._reserved = wanted

    def __enter__(self) -> UploadShare:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.reserved -= self._reserved
        self._reserved = 0
