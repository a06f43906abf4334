"""What the verbs print: tables for people on standard output, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


def print_json(result: Any) -> None:
    """One JSON object on one line."""
    print(json.dumps(result, default=_plain), flush=True)


def print_line(*parts: str | tuple[str, str]) -> None:
    """A line for people, put together from plain text and (text, style) pairs; nothing in the text is markup."""
    _console().print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table for people; numbers to the right."""
    drawn = make_table(columns, rows)
    if title:
        print_line((title, "bold"))
    show(drawn)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """The same, to be shown with others; a cell may be a `Text`."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    rows = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        drawn.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    return drawn


def show(drawn: RenderableType) -> None:
    """Whatever rich can draw."""
    _console().print(drawn, highlight=False)


def _console() -> Console:
    # Into a pipe rich would cut lines at 80 columns.
    return Console(width=None if sys.stdout.isatty() else 160)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "as_dict"):
        return value.as_dict()
    raise TypeError(f"{type(value).__name__} has no JSON form")
