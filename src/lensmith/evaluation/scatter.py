"""Scatter plot of engines for the report: speed against accuracy lost, as positions in pixels for an SVG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lensmith.bundle.format import EngineRecord

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 436, 14, 214
"""Edges of the plot."""
LETTER, LINE = 5.8, 12.0
"""Rough size of a letter of the labels, whose font is the reader's."""

_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ScatterPoint:
    """One engine.

    Attributes:
        record: measurements of the engine.
        x, y: position of the dot, in pixels.
        clipped: whether the engine loses more than the plot shows; then its dot is on the lower edge.
        label: name of the engine, empty where there is no room.
        label_x, label_y, anchor: position of the name, in pixels, and SVG's text-anchor.
    """

    record: EngineRecord
    x: float
    y: float
    clipped: bool
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True)
class Scatter:
    """The plot.

    Attributes:
        points: engines, the selected one last, so that it is drawn on top.
        x_ticks, y_ticks: position in pixels and text of each tick.
        limit_y: position of the accuracy limit, in pixels.
    """

    points: tuple[ScatterPoint, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    limit_y: float


def draw(records: Iterable[EngineRecord], max_drop_pp: float) -> Scatter | None:
    """Position the engines that were measured; None if there are fewer than two.

    Up is less accuracy lost, right is faster. An engine that loses many times what is allowed would push all others
    into one line, so the plot ends at three times the limit.

    Args:
        records: engines, measured or not.
        max_drop_pp: accuracy that may be lost, in percentage points.
    """
    known = [r for r in records if r.drop is not None and r.images_per_second is not None]
    if len(known) < 2:
        return None
    drops = [float(r.drop or 0.0) for r in known]
    most = max(1.0, 3 * max_drop_pp)
    y_ticks = _ticks(min(0.0, *drops), max(0.2, max_drop_pp, *(min(drop, most) for drop in drops)))
    x_ticks = _ticks(0.0, max(float(r.images_per_second or 0.0) for r in known) or 1.0)

    def across(speed: float) -> float:
        return LEFT + (RIGHT - LEFT) * speed / x_ticks[-1]

    def down(drop: float) -> float:
        return TOP + (BOTTOM - TOP) * (min(drop, y_ticks[-1]) - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    points = [
        ScatterPoint(r, across(r.images_per_second or 0.0), down(drop), drop > y_ticks[-1])
        for r, drop in zip(known, drops, strict=True)
    ]
    return Scatter(
        points=tuple(sorted(_named(points), key=lambda point: point.record.chosen)),
        x_ticks=tuple((across(tick), f"{tick:,g}") for tick in x_ticks),
        y_ticks=tuple((down(tick), f"{tick:g}") for tick in y_ticks),
        limit_y=down(max_drop_pp),
    )


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Four to eight round numbers, of which the first is at most `low` and the last at least `high`."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(number * step, 10) for number in range(first, last + 1))


def _named(points: Sequence[ScatterPoint]) -> list[ScatterPoint]:
    """Label the engines where labels cover no dot and no other label; the selected one first, then the Pareto front."""
    taken: list[_Box] = [(p.x - 7, p.y - 7, p.x + 7, p.y + 7) for p in points]
    named = []
    for point in sorted(points, key=lambda p: (not p.record.chosen, not p.record.pareto)):
        text = point.record.name + (f", {point.record.drop:.1f} lost" if point.clipped else "")
        width = LETTER * len(text)
        for x, y, anchor, start in (
            (point.x + 12, point.y + 3.5, "start", point.x + 12),
            (point.x - 12, point.y + 3.5, "end", point.x - 12 - width),
            (point.x, point.y - 13, "middle", point.x - width / 2),
            (point.x, point.y + 20, "middle", point.x - width / 2),
        ):
            box = (start, y - LINE + 3, start + width, y + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= BOTTOM + 8
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                point = replace(point, label=text, label_x=x, label_y=y, anchor=anchor)
                break
        named.append(point)
    return named


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
