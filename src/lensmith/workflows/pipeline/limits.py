"""A number, what it may be, and the limit that it has to keep: kept, broken, or neither shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lensmith.workflows.pipeline.intervals import Interval

Verdict = Literal["holds", "open", "broken"]
WORDS: dict[Verdict, str] = {"holds": "holds", "open": "not shown to hold", "broken": "broken"}
"""What is said of each verdict."""


@dataclass(frozen=True)
class Limit:
    """One limit of the gate.

    Attributes:
        name: of the setting.
        what: what was measured, in words; the class, where it is about one.
        measured: with its interval; None: nothing could be measured.
        bound: what it has to keep.
        side: whether that is the least or the most allowed.
        unit: of all three numbers.
        shown: it has to be shown to hold, whatever `strict` says.
    """

    name: str
    what: str
    measured: Interval | None
    bound: float
    side: Literal["least", "most"]
    unit: str = ""
    shown: bool = False

    @property
    def verdict(self) -> Verdict:
        """holds: the whole interval keeps the limit; broken: none of it does; open: neither is shown."""
        if self.measured is None:
            return "open"
        sign = 1 if self.side == "least" else -1
        ends = sorted((sign * self.measured.low, sign * self.measured.high))
        if ends[0] >= sign * self.bound:
            return "holds"
        return "broken" if ends[1] < sign * self.bound else "open"

    def fails(self, strict: bool) -> bool:
        """Whether the gate stays closed for it."""
        return self.verdict == "broken" or (self.verdict == "open" and (strict or self.shown))

    def said(self) -> str:
        """The number, its interval and the limit."""
        if self.measured is None:
            return f"{self.what}: no test image, so nothing is known of it"
        number = self.measured
        unit = f" {self.unit}" if self.unit else ""
        between = ""
        if number.level < 1:
            between = f", {100 * number.level:.4g} % interval {shown(number.low)} to {shown(number.high)}"
        return f"{self.what} is {shown(number.value)}{unit}{between}, at {self.side} {shown(self.bound)} allowed"

    def as_dict(self, strict: bool) -> dict[str, Any]:
        """Plain values for JSON; `fails` as with `strict`."""
        return {
            "limit": self.name,
            "what": self.what,
            "measured": self.measured and self.measured.as_dict(),
            "bound": self.bound,
            "side": self.side,
            "unit": self.unit,
            "verdict": self.verdict,
            "fails": self.fails(strict),
        }


def worst_first(limits: Sequence[Limit], strict: bool) -> list[Limit]:
    """Those that fail first, broken ones before open ones, then open ones; within each as they were."""
    order = ("broken", "open", "holds")
    return sorted(limits, key=lambda limit: (not limit.fails(strict), order.index(limit.verdict)))


def shown(value: float) -> str:
    """Four significant digits at most, and no minus zero."""
    return f"{value + 0.0:.4g}" if abs(value) >= 1e-9 else "0"
