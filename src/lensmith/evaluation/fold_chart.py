"""Chart of a cross-validation for the report: accuracy of each fold and of all answers, with intervals, as SVG."""

import math
from dataclasses import dataclass

from lensmith.evaluation.cross_validation import CrossValidation

WIDTH, LEFT, RIGHT = 640, 96, 560
TOP, ROW = 14, 26
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Distances of two ticks, as shares of correct answers; the first that needs no more than MOST_TICKS is taken."""
MOST_TICKS = 8


@dataclass(frozen=True)
class FoldRow:
    """One row of the chart; x in pixels.

    Attributes:
        name: text at the left.
        value: text at the right.
        y: height of the row's middle.
        x: place of the accuracy.
        low: place of the interval's lower end.
        high: place of its upper end.
        is_pooled: whether it is the row of all answers.
    """

    name: str
    value: str
    y: float
    x: float
    low: float
    high: float
    is_pooled: bool = False


@dataclass(frozen=True)
class FoldChart:
    """Rows and ticks of the chart.

    Attributes:
        rows: the folds in order, then all answers.
        ticks: place and text of each tick, in pixels.
        bottom: y of the axis.
        height: height of the drawing.
    """

    rows: tuple[FoldRow, ...]
    ticks: tuple[tuple[float, str], ...]
    bottom: float
    height: float


def draw(found: CrossValidation) -> FoldChart:
    """Place the folds on an axis that begins and ends at a tick and holds all intervals."""
    intervals = [*(each.accuracy_interval for each in found.folds), found.accuracy_interval]
    least, most = min(low for low, _ in intervals), max(high for _, high in intervals)
    step = next((each for each in STEPS if (most - least) / each <= MOST_TICKS - 2), STEPS[-1])
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    last = max(last, first + 1)

    def place(share: float) -> float:
        return LEFT + (RIGHT - LEFT) * (share / step - first) / (last - first)

    values = [*(each.accuracy for each in found.folds), found.accuracy]
    names = [*(f"fold {each.fold}" for each in found.folds), "all answers"]
    rows = tuple(
        FoldRow(
            name,
            f"{100 * value:.1f} %",
            TOP + ROW * (number + 0.5),
            place(value),
            place(low),
            place(high),
            is_pooled=number == len(found.folds),
        )
        for number, (name, value, (low, high)) in enumerate(zip(names, values, intervals, strict=True))
    )
    bottom = TOP + ROW * len(rows)
    ticks = tuple((place(tick * step), f"{100 * tick * step:g}") for tick in range(first, last + 1))
    return FoldChart(rows, ticks, bottom, bottom + 42)
