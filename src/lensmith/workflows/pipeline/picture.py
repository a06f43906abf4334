"""The gate as a picture: each number with its interval against its limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.workflows.pipeline.gate import Gate
from lensmith.workflows.pipeline.limits import WORDS, Limit, worst_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 20
"""Drawn at most, the worst first."""

GOOD, OPEN, BAD = "#2e7d32", "#b26a00", "#c62828"


def draw(gate: Gate, path: Path) -> None:
    """Write a PNG with a row for each limit; the side that is allowed is shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [limit for limit in worst_first(gate.limits, gate.strict) if limit.measured is not None][:ROWS]
    figure = Figure(figsize=(9, 1.1 + 0.62 * max(1, len(rows))), layout="constrained")
    against = f"against {gate.champion}" if gate.champion else "without a champion"
    title = f"{gate.bundle} {against}, {gate.images:,} test images: {'passed' if gate.passed else 'FAILED'}"
    figure.suptitle(title, fontsize=11, fontweight="bold")
    for number, limit in enumerate(rows, 1):
        _row(figure.add_subplot(len(rows), 1, number), limit, limit.fails(gate.strict))
    partial = path.with_name(f".{path.name}.partial")
    FigureCanvasAgg(figure)
    figure.savefig(partial, format="png")
    partial.replace(path)


def _row(axes: Axes, limit: Limit, fails: bool) -> None:
    measured = limit.measured
    assert measured is not None
    colour = BAD if fails else GOOD if limit.verdict == "holds" else OPEN
    low, high = min(measured.low, limit.bound), max(measured.high, limit.bound)
    room = 0.15 * (high - low) or abs(limit.bound) * 0.2 or 1.0
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(-1, 1)
    allowed = (limit.bound, high + room) if limit.side == "least" else (low - room, limit.bound)
    axes.axvspan(*allowed, color="#e8f1e8", zorder=0)
    axes.axvline(limit.bound, color="#444444", linewidth=1.2, linestyle="--")
    axes.plot([measured.low, measured.high], [0, 0], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot([measured.value], [0], "o", color=colour, markersize=7)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=7)
    unit = f" [{limit.unit}]" if limit.unit else ""
    axes.set_ylabel(f"{limit.what}{unit}", rotation=0, ha="right", va="center", fontsize=8)
    said = f"FAILS: {WORDS[limit.verdict]}" if fails else WORDS[limit.verdict]
    weight = "bold" if fails else "normal"
    axes.text(1.01, 0.5, said, transform=axes.transAxes, va="center", fontsize=8, color=colour, fontweight=weight)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
