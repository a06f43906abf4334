"""Value ranges: which stored value is black and which is white, where a file's format does not tell.

16-bit files often hold 10, 12 or 14 bits, and float and signed files hold anything. A range is decided once, from the
statistics of a whole set of pictures, and is part of the bundle's preprocessing; a picture alone never decides it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["uint16", "uint32", "int8", "int16", "int32", "float32"]
"""Kinds of stored values whose range formats do not tell, as NumPy names them."""

ValueRange = tuple[float, float]
"""The value that is black and the one that is white."""

FULL_UINT16: ValueRange = (0.0, 65535.0)

_TYPES: dict[Kind, ValueRange] = {
    "uint16": FULL_UINT16,
    "uint32": (0.0, 2.0**32 - 1),
    "int8": (-128.0, 127.0),
    "int16": (-32768.0, 32767.0),
    "int32": (-(2.0**31), 2.0**31 - 1),
    "float32": (-math.inf, math.inf),
}
_DEPTHS = tuple(2.0**bits - 1 for bits in (8, 10, 12, 14, 16))
"""White of the depths in bits that cameras, scanners and detectors have."""

FILLED = 1 / 16
"""Share of a usual range that values must span for it to be taken: with less, fewer than 16 grey levels are left."""

SLACK = 0.13
"""Share of the white by which floats may exceed a usual range: filters overshoot."""

_FAR_OCTAVES, _NEAR_OCTAVES = 2.5, 1.1
"""Gaps between the levels of two groups of pictures, as powers of two: one that no set of one range has, and one that
it has hardly ever if both groups are large and the lower one ends at a usual white."""

_FEW, _MANY = 0.05, 0.2
"""Smallest shares of the pictures in the groups of such gaps."""


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics of one picture's stored values, without missing values, padding and a few outliers.

    Attributes:
        kind: kind of the values.
        low: lowest value.
        high: highest value.
        whole: whether all values are whole numbers.
    """

    kind: Kind
    low: float
    high: float
    whole: bool

    @property
    def level(self) -> float:
        """The highest value, or the span of values that are partly negative."""
        return self.high if self.low >= -SLACK * self.high else self.high - self.low

    @property
    def is_flat(self) -> bool:
        """Whether all pixels have one value, which says nothing of a range."""
        return self.low == self.high

    @property
    def is_unit(self) -> bool:
        """Whether the values can only be meant as 0 to 1."""
        return not self.whole and self.low >= -SLACK and self.high <= 1 + SLACK


def decide(found: Iterable[ValueStatistics]) -> dict[str, ValueRange]:
    """The range of each kind of values, from the statistics of all pictures of a set.

    The smallest usual range that holds the values (8, 10, 12, 14 or 16 bits from 0; 0 to 1 for floats) where they span
    enough of it, the whole of a signed type where they fill that, and otherwise the lowest to the highest value.
    Pictures of one value do not count where there are others: a blank one may have any.
    """
    kinds: dict[Kind, list[ValueStatistics]] = {}
    for each in found:
        kinds.setdefault(each.kind, []).append(each)
    shown = {kind: [each for each in group if not each.is_flat] or group for kind, group in kinds.items()}
    return {kind: _range_of(kind, group) for kind, group in sorted(shown.items())}


def mixed(found: Mapping[str, ValueStatistics]) -> tuple[list[str], list[str]] | None:
    """Names of pictures of one kind that fall into two groups of different ranges, the darker group first; else None.

    Args:
        found: statistics of pictures of one kind, by name.
    """
    names = sorted((name for name, each in found.items() if not each.is_flat), key=lambda name: found[name].level)
    levels = [found[name].level for name in names]
    if units := [name for name in names if found[name].is_unit]:
        others = [name for name in names if found[name].level >= 128]
        if others:
            return units, others
    negative = [name for name in names if found[name].low <= -0.2 * (found[name].high - found[name].low)]
    others = [name for name in names if found[name].low >= 0]
    if min(len(negative), len(others)) >= max(2.0, _MANY * len(names)):
        return negative, others
    if len(names) < 2:
        return None
    gaps = [math.log2(above / below) if below > 0 else 0.0 for below, above in pairwise(levels)]
    at = max(range(len(gaps)), key=gaps.__getitem__)
    lower, upper = names[: at + 1], names[at + 1 :]
    ends = any(0.75 * white <= levels[at] <= white for white in _DEPTHS)
    # A few bright pictures make all others dark; a few dark ones only themselves.
    near = gaps[at] >= _NEAR_OCTAVES and ends and len(lower) >= max(2.0, _MANY * len(names))
    if near and len(upper) < max(2.0, _MANY * len(names)):
        near = len(lower) >= 4
    if near or (gaps[at] >= _FAR_OCTAVES and len(lower) >= max(2.0, _FEW * len(names))):
        return lower, upper
    return None


def far_darker(found: Mapping[str, ValueStatistics]) -> list[str]:
    """Names of pictures of one kind that are much darker than all others, too few to be surely of another range."""
    names = sorted((name for name, each in found.items() if not each.is_flat), key=lambda name: found[name].level)
    at = next((at for at, (one, other) in enumerate(pairwise(names)) if _is_far_below(found[one], found[other])), None)
    return [] if at is None or 2 * (at + 1) > len(names) else names[: at + 1]


def contradiction(found: ValueStatistics, value_range: ValueRange) -> str | None:
    """The reason why a picture's values cannot be of the range of its set; None if they can."""
    black, white = value_range
    span, usual = white - black, black == 0 and white in (1.0, *_DEPTHS)
    beyond = span
    if usual:
        beyond = 2 * SLACK * span if found.kind == "float32" else 0.0
    outside = found.high > white + beyond or found.low < black - max(beyond, SLACK * span)
    if outside or (white >= 128 and found.is_unit and not found.is_flat):
        return (
            f"Its {found.kind} values lie between {number(found.low)} and {number(found.high)}, and the range that "
            f"was decided for the training images is {number(black)} to {number(white)}."
        )
    return None


def number(value: float) -> str:
    """A stored value for people."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def describe(kind: str, value_range: ValueRange) -> str:
    """A range for people, such as `uint16 from 0 (black) to 4,095 (white)`."""
    black, white = value_range
    return f"{kind} from {number(black)} (black) to {number(white)} (white)"


def _is_far_below(lower: ValueStatistics, upper: ValueStatistics) -> bool:
    """Whether one picture is darker than another by a far gap."""
    return 0 < lower.level * 2**_FAR_OCTAVES <= upper.level


def _range_of(kind: Kind, group: Sequence[ValueStatistics]) -> ValueRange:
    low, high = min(each.low for each in group), max(each.high for each in group)
    if kind == "uint16" and low == high:
        return FULL_UINT16
    least, most = _TYPES[kind]
    slack = SLACK if kind == "float32" else 0.02
    if low >= -slack * high:
        slackened = 1 + SLACK if kind == "float32" else 1
        white = next((white for white in _usual_whites(kind) if high <= white * slackened), math.inf)
        if high - low >= FILLED * white:
            return 0.0, white
        return (low if low > high / 4 and low < high else 0.0), high or 1.0
    if low < least / 2 and high > most / 2:
        return least, most
    return low, high if high > low else low + 1.0


def _usual_whites(kind: Kind) -> list[float]:
    most = _TYPES[kind][1]
    whites = [white for white in _DEPTHS if white <= most]
    if kind == "float32":
        return [1.0, *whites]
    return [*whites, most] if most not in whites else whites
