"""Rate limit: images of each caller counted in a sliding window, in the memory of this process.

The count of the sliding window is that of the current window plus, of the previous one, the share that the sliding
window still covers. Fixed windows would allow twice the quota around their border; an exact sliding window would store
the time of each image, in memory that grows with the quota. A caller who has used the whole quota at once gets it back
evenly over a window, as from a token bucket.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass

from lensmith.errors import SettingsError

MAX_CALLERS = 50_000
"""Most callers counted at once, in about 12 MB; beyond that the one silent for longest is dropped."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True)
class Rate:
    """A limit: at most `images` in a window of `seconds`."""

    images: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read a rate such as `200/minute`: a number of images, a slash, and second, minute, hour or day.

        Raises:
            SettingsError: `text` has another form, or allows no image.
        """
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(second|minute|hour|day)\s*", text)
        if not found or not int(found[1]):
            raise SettingsError(
                "A quota was expected as NUMBER/second, /minute, /hour or /day, or none.",
                f"{text!r} arrived.",
                "Write, for example, --quota 200/minute.",
            )
        return cls(int(found[1]), _SECONDS[found[2]])

    def wait_s(self, previous: int, current: int, left: float, images: int) -> float:
        """Seconds until `images` more are allowed; 0.0: now.

        Args:
            previous: images counted in the previous window.
            current: images counted in the current window.
            left: seconds until the current window ends.
            images: images asked for, at most `self.images`.
        """
        free = self.images - images
        if current > free:  # not before the current window is the previous one, and has partly passed
            return left + self.seconds * (1 - free / current)
        if previous * left <= (free - current) * self.seconds:
            return 0.0
        return left - self.seconds * (free - current) / previous


class MemoryRateLimiter:
    """Images of the callers of this process in the current window and the previous one."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        # Of each caller its window, the images in it, and those in the one before.
        self._callers: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def take(self, key: str, images: int) -> float:
        """Count `images` if they are allowed. Returns the seconds until they would be; 0.0: they are counted."""
        number, left = self._now()
        current, previous = self._read(key, number)
        wait = self._rate.wait_s(previous, current, left, images)
        if not wait:
            self._store(key, number, current + images, previous)
        return wait

    def record(self, key: str, images: int) -> None:
        """Count `images` that another limiter has allowed."""
        number, _ = self._now()
        current, previous = self._read(key, number)
        self._store(key, number, current + images, previous)

    def _now(self) -> tuple[int, float]:
        windows, passed = divmod(time.monotonic(), self._rate.seconds)
        return int(windows), self._rate.seconds - passed

    def _read(self, key: str, number: int) -> tuple[int, int]:
        last, current, previous = self._callers.get(key, (number, 0, 0))
        if last == number:
            return current, previous
        return 0, current if last == number - 1 else 0

    def _store(self, key: str, number: int, current: int, previous: int) -> None:
        self._callers[key] = number, current, previous
        self._callers.move_to_end(key)
        # The first ones are silent for longest. Up to two leave for each that comes, so expired ones soon disappear.
        for _ in range(2):
            silent = next(iter(self._callers))
            if self._callers[silent][0] < number - 1 or len(self._callers) > MAX_CALLERS:
                del self._callers[silent]
