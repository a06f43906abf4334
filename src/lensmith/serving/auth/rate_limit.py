"""Images counted in a sliding window for each caller, in the memory of this process.

The count of the sliding window is that of the running window and, of the one before, the share that it still covers.
Fixed windows would let a caller send twice the quota at once, around their border; to remember the time of each image,
as an exact window needs, costs memory that grows with the quota. Who has sent all of it at once gets it back evenly
over a window, as from a token bucket.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass

from lensmith.errors import SettingsError

CALLERS = 50_000
"""Callers counted at once, in about 12 MB; beyond, the longest silent one is forgotten."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class Rate:
    """So many `images` in a window of so many `seconds`."""

    images: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`200/minute`: a number of images, a slash, and second, minute, hour or day.

        Raises:
            SettingsError: it is written otherwise, or allows no image.
        """
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(second|minute|hour|day)\s*", text)
        if not found or not int(found[1]):
            raise SettingsError(
                "A quota was expected as NUMBER/second, /minute, /hour or /day, or none.",
                f"{text!r} arrived.",
                "Write, for example, --quota 200/minute.",
            )
        return cls(int(found[1]), _SECONDS[found[2]])

    def wait(self, previous: int, current: int, left: float, images: int) -> float:
        """Seconds until `images` more fit; 0 where they do now.

        Args:
            previous: images in the window before.
            current: images in the running one.
            left: seconds until the running one ends.
            images: at most `self.images`.
        """
        free = self.images - images
        if current > free:  # only once this window is the one before, and has faded
            return left + self.seconds * (1 - free / current)
        if previous * left <= (free - current) * self.seconds:
            return 0.0
        return left - self.seconds * (free - current) / previous


class Counts:
    """What the callers of this process have sent in the running window and the one before."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._callers: OrderedDict[str, tuple[int, int, int]] = OrderedDict()  # window's number, its images, before

    def take(self, key: str, images: int) -> float:
        """Count `images` if they fit. Returns the seconds until they would; 0.0: they are counted."""
        number, left = self._now()
        current, previous = self._of(key, number)
        wait = self._rate.wait(previous, current, left, images)
        if not wait:
            self._keep(key, number, current + images, previous)
        return wait

    def note(self, key: str, images: int) -> None:
        """Count `images` that were let in by somebody else's count."""
        number, _ = self._now()
        current, previous = self._of(key, number)
        self._keep(key, number, current + images, previous)

    def _now(self) -> tuple[int, float]:
        windows, passed = divmod(time.monotonic(), self._rate.seconds)
        return int(windows), self._rate.seconds - passed

    def _of(self, key: str, number: int) -> tuple[int, int]:
        last, current, previous = self._callers.get(key, (number, 0, 0))
        if last == number:
            return current, previous
        return 0, current if last == number - 1 else 0

    def _keep(self, key: str, number: int, current: int, previous: int) -> None:
        self._callers[key] = number, current, previous
        self._callers.move_to_end(key)
        # The first are the longest silent. Two leave for each that comes, so what has faded is soon gone.
        for _ in range(2):
            silent = next(iter(self._callers))
            if self._callers[silent][0] < number - 1 or len(self._callers) > CALLERS:
                del self._callers[silent]
