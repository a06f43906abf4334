"""Limits of the gate: each is checked against a measurement and its confidence interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lensmith.core.result import Result
from lensmith.workflows.pipeline.intervals import Interval

Verdict = Literal["holds", "open", "broken"]
WORDS: dict[Verdict, str] = {"holds": "holds", "open": "not shown to hold", "broken": "broken"}
"""Each verdict in words."""
COLUMNS = ("limit", "what", "measured", "interval", "limit is", "unit", "verdict")
"""Column heads of `table_rows`."""


@dataclass(frozen=True)
class LimitCheck(Result):
    """One limit of the gate, with what was measured.

    Attributes:
        limit: name of the setting in the gate's section.
        what: the measured quantity in words, with the class if it is about one.
        measured: measured value with its interval; None if nothing could be measured.
        bound: value of the limit.
        side: whether the bound is the least or the most allowed.
        unit: unit of the measurement and of the bound.
        must_hold: whether an open verdict also fails.
    """

    computed: ClassVar[tuple[str, ...]] = ("verdict", "fails")
    hidden: ClassVar[tuple[str, ...]] = ("must_hold",)

    limit: str
    what: str
    measured: Interval | None
    bound: float
    side: Literal["least", "most"]
    unit: str = ""
    must_hold: bool = False

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

    @property
    def fails(self) -> bool:
        """Whether this limit closes the gate."""
        return self.verdict == "broken" or (self.verdict == "open" and self.must_hold)

    def __str__(self) -> str:
        """Name, value, interval and bound in one line."""
        number = self.measured
        if number is None:
            return f"{self.limit}: {self.what}: no test image, so nothing is known of it"
        unit = f" {self.unit}" if self.unit else ""
        interval = ""
        if number.level < 1:
            interval = f", {100 * number.level:.4g} % interval {_text(number.low)} to {_text(number.high)}"
        bound = f"at {self.side} {_text(self.bound)} allowed"
        return f"{self.limit}: {self.what} is {_text(number.value)}{unit}{interval}, {bound}"


def worst_first(limits: Sequence[LimitCheck]) -> tuple[LimitCheck, ...]:
    """Failing limits first, broken before open; the order of equals is unchanged."""
    order = ("broken", "open", "holds")
    return tuple(sorted(limits, key=lambda check: (not check.fails, order.index(check.verdict))))


def table_rows(limits: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of text under `COLUMNS`, from `LimitCheck.as_dict()` of each limit."""
    rows: list[tuple[str, ...]] = []
    for limit in limits:
        measured, verdict = limit["measured"], WORDS[limit["verdict"]]
        number = interval = "–"
        if measured:
            number = _text(measured["value"])
            exact = measured["level"] >= 1
            interval = "exact" if exact else f"{_text(measured['low'])} to {_text(measured['high'])}"
        bound = f"at {limit['side']} {_text(limit['bound'])}"
        verdict = f"FAILS: {verdict}" if limit["fails"] else verdict
        rows.append((limit["limit"], limit["what"], number, interval, bound, limit["unit"], verdict))
    return rows


def _text(value: float) -> str:
    """Four significant digits at most, and no minus zero."""
    return f"{value + 0.0:.4g}" if abs(value) >= 1e-9 else "0"
