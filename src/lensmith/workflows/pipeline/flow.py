"""A pipeline as a picture: its stages as a flow, each with what became of it. SVG, drawn by hand."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from html import escape

from lensmith.workflows.pipeline.run import Outcome, Ran

COLOURS = {
    "done": "#2e7d32", "unchanged": "#5b8c5e", "failed": "#c62828", "stopped": "#b26a00", "running": "#1565c0",
    "to do": "#757575", "off": "#9e9e9e",
}  # fmt: skip
TITLES = {"check": "check data", "rollout": "roll out"}

WIDTH, HEIGHT, GAP, MARGIN, TOP = 236, 132, 34, 20, 58
"""Of a box, between two, and around all, in pixels."""
COLUMNS = 4
LINES, CHARACTERS = 4, 31
"""Of what is said in a box."""


def svg(ran: Ran) -> str:
    """The whole picture, readable on white and without any file beside it."""
    rows = -(-len(ran.stages) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    height = TOP + rows * HEIGHT + (rows - 1) * GAP + MARGIN
    head = f"{ran.name}" + (f", last run {ran.started[:16].replace('T', ' ')} UTC" if ran.started else "")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(ran.name)}: {escape(', '.join(f'{each.stage} {each.state}' for each in ran.stages))}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#888888"/></marker></defs>',
        f'<text x="{MARGIN}" y="34" font-size="18" font-weight="600" fill="#222222">{escape(head)}</text>',
    ]
    for number, outcome in enumerate(ran.stages):
        parts += _box(outcome, *_corner(number))
        if number + 1 < len(ran.stages):
            parts.append(_arrow(number))
    return "\n".join([*parts, "</svg>"])


def _corner(number: int) -> tuple[int, int]:
    row, column = divmod(number, COLUMNS)
    return MARGIN + column * (WIDTH + GAP), TOP + row * (HEIGHT + GAP)


def _arrow(number: int) -> str:
    x, y = _corner(number)
    if (number + 1) % COLUMNS:
        path = f"M{x + WIDTH + 3} {y + HEIGHT / 2} h{GAP - 8}"
    else:  # to the first box of the next row
        to, below = _corner(number + 1)
        path = f"M{x + WIDTH / 2} {y + HEIGHT + 3} v{GAP / 2 - 3} H{to + WIDTH / 2} V{below - 4}"
    return f'<path d="{path}" fill="none" stroke="#888888" stroke-width="1.6" marker-end="url(#tip)"/>'


def _box(outcome: Outcome, x: int, y: int) -> Iterator[str]:
    colour = COLOURS.get(outcome.state, "#757575")
    dashes = ' stroke-dasharray="5 4"' if outcome.state in ("off", "to do") else ""
    yield (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#fafafa" stroke="{colour}" '
        f'stroke-width="1.6"{dashes}/>'
    )
    title = TITLES.get(outcome.stage, outcome.stage)
    yield f'<text x="{x + 12}" y="{y + 24}" font-size="15" font-weight="600" fill="#222222">{title}</text>'
    yield (
        f'<text x="{x + WIDTH - 12}" y="{y + 24}" font-size="12" font-weight="600" text-anchor="end" fill="{colour}">'
        f"{outcome.state}</text>"
    )
    if outcome.seconds is not None and outcome.state != "off":
        yield (
            f'<text x="{x + WIDTH - 12}" y="{y + HEIGHT - 10}" font-size="11" text-anchor="end" fill="#666666">'
            f"{seconds(outcome.seconds)}</text>"
        )
    lines = textwrap.wrap(outcome.said, CHARACTERS)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1][: CHARACTERS - 1]}…"]
    for number, line in enumerate(lines):
        yield f'<text x="{x + 12}" y="{y + 46 + 16 * number}" font-size="12" fill="#333333">{escape(line)}</text>'
    if outcome.key and outcome.state != "off":
        yield (
            f'<text x="{x + 12}" y="{y + HEIGHT - 10}" font-size="10" font-family="ui-monospace, monospace" '
            f'fill="#8a8a8a">{outcome.key}</text>'
        )


def seconds(took: float) -> str:
    """`0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if took < 60:
        return f"{took:.1f} s"
    minutes, rest = divmod(round(took), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
