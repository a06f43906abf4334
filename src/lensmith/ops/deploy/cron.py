"""Cron schedule: parser and validator of the five fields, and their translation to systemd's OnCalendar.

    minute  hour  day of month  month  day of week

If both days are restricted, cron runs on either, which takes two lines in systemd. A day that begins with `*/` beside
another restricted day means "both" to Debian's cron and "either" to Kubernetes, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lensmith.errors import SettingsError

MACROS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Number of days of each month, at most."""

_FIELDS: Sequence[tuple[str, int, int, tuple[str, ...]]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("", *MONTHS)),
    ("day of week", 0, 7, DAYS),
)
_PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)


@dataclass(frozen=True)
class CronSchedule:
    """A parsed cron schedule; all numbers are sorted.

    Attributes:
        text: the five fields, separated by single blanks.
        minutes: minutes, 0..59.
        hours: hours, 0..23.
        days: days of the month, 1..31; None for all.
        months: months, 1..12; None for all.
        weekdays: days of the week, 0 (Sunday) to 6; None for all.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...] | None
    months: tuple[int, ...] | None
    weekdays: tuple[int, ...] | None

    @classmethod
    def parse(cls, written: str) -> CronSchedule:
        """Parse five fields, or one of `MACROS`.

        Raises:
            SettingsError: fields that are invalid, never match, or mean different things to different crons.
        """
        text = MACROS.get(written.strip().lower(), " ".join(written.split()))
        fields = text.split()
        if len(fields) != len(_FIELDS):
            macros = ", ".join(MACROS)
            raise _wrong(written, f"the known macros are {macros}" if text[:1] == "@" else
                         f"it has {len(fields)} field{'s' * (len(fields) != 1)}")  # fmt: skip
        minutes, hours, days, months, weekdays = (
            _values(written, field, *rule) for field, rule in zip(fields, _FIELDS, strict=True)
        )
        restricted = [field for field in (fields[2], fields[4]) if field != "*"]
        if len(restricted) == 2 and any(field.startswith("*") for field in restricted):
            raise _wrong(
                written,
                "a day of month beside a day of week, one with */, means both to one cron and either to another",
            )
        if days and not weekdays and min(days) > max(LONGEST[month - 1] for month in months or range(1, 13)):
            raise _wrong(written, "no such month has such a day, so it would never run")
        if weekdays:
            weekdays = tuple(sorted({day % 7 for day in weekdays}))
        every = tuple(range(60)), tuple(range(24))
        return cls(text, minutes or every[0], hours or every[1], days, months, weekdays)

    @property
    def shortest_minutes(self) -> int:
        """Shortest interval in minutes between runs of the same or of consecutive hours; 60 for one run an hour."""
        if len(self.minutes) == 1:
            return 60
        gaps = [later - earlier for earlier, later in zip(self.minutes, self.minutes[1:], strict=False)]
        return min(*gaps, 60 - self.minutes[-1] + self.minutes[0]) if len(self.hours) > 1 else min(gaps)

    def on_calendar(self) -> tuple[str, ...]:
        """Values of systemd's OnCalendar=; the timer runs at the times of each."""
        time = f"{_field_text(self.hours, 24)}:{_field_text(self.minutes, 60)}:00"
        month = _field_text(self.months, 12)
        names = ",".join(DAYS[day].capitalize() for day in self.weekdays or ())
        of_month = f"*-{month}-{_field_text(self.days, 31)} {time}"
        of_week = f"{names} *-{month}-* {time}"
        if self.days and self.weekdays:
            return of_month, of_week
        return (of_week if self.weekdays else of_month,)


def _values(written: str, field: str, name: str, low: int, high: int, names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The numbers of a field; None for `*`."""
    if field == "*":
        return None
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _wrong(written, f"its {name} {field!r} is no number, list, range or step")
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        if first is not None and last is None and match["step"]:
            raise _wrong(written, f"its {name} {part!r} has a step of a single value; a range is {first}-{high}/{step}")
        begin = low if first is None else _number(written, first, name, low, high, names)
        end = (high if name != "day of week" else 6) if first is None else begin
        end = end if last is None else _number(written, last, name, low, high, names)
        if begin > end or not 1 <= step <= high:
            raise _wrong(written, f"its {name} {part!r} {'goes backwards' if begin > end else 'has no such step'}")
        found.update(range(begin, end + 1, step))
    return tuple(sorted(found))


def _number(written: str, text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    number = names.index(text.lower()) if text.lower() in names else int(text) if text.isdecimal() else -1
    if not low <= number <= high:
        raise _wrong(written, f"its {name} {text!r} is not in {low} to {high}")
    return number


def _field_text(values: tuple[int, ...] | None, count: int) -> str:
    if values is None or len(values) == count:
        return "*"
    return ",".join(f"{value:02d}" for value in values)


def _wrong(written: str, reason: str) -> SettingsError:
    return SettingsError(
        "A cron schedule of five fields was expected: minute, hour, day of month, month, day of week.",
        f"{written!r} arrived: {reason}.",
        "Write it as --cron '0 3 * * *', every night at three, or --cron '30 4 * * mon'.",
    )
