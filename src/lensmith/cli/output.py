"""Output of the verbs: tables on standard output, or one JSON object for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lensmith.core.machine import launched_ranks
from lensmith.core.result import plain
from lensmith.errors import LensmithError


def print_json(result: Any) -> None:
    """Print a result as one JSON object on one line."""
    print(json.dumps(result, default=_plain), flush=True)


def exit_with(problem: LensmithError) -> NoReturn:
    """Exit with the code of a problem that is already part of the JSON object on standard output."""
    print(f"lensmith: {problem}", file=sys.stderr)
    raise typer.Exit(problem.exit_code)


def can_ask() -> bool:
    """Whether somebody at a terminal can be asked."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def is_confirmed(question: str) -> bool:
    """Ask on standard error; the end of the input means no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def print_line(*parts: str | tuple[str, str]) -> None:
    """Print a line of plain text and (text, style) pairs; nothing in the text is markup."""
    _console().print(Text.assemble(*parts), highlight=False, soft_wrap=True)


SHOWN = 20
"""Rows of a table of findings; --json has all."""


def print_notes(notes: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """Print sentences on a line each, and warnings as such."""
    for note in notes:
        print_line(note)
    for warning in warnings:
        print_line(("Warning: ", "yellow"), warning)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], shown: int | None = None) -> None:
    """Print a table under its title; numbers are aligned right.

    Args:
        title: line above the table; empty: there is none.
        columns: names of the columns.
        rows: cells of each row.
        shown: number of rows that are printed at most, with a line on how many there are besides; None: all.
    """
    rows = list(rows)
    table = make_table(columns, rows[:shown])
    if title:
        print_line((title, "bold"))
    show(table)
    if shown is not None and len(rows) > shown:
        print_line(f"… and {len(rows) - shown:,} more; --json has all")


def print_counts(classes: Mapping[str, Mapping[str, int]], parts: Sequence[str], *further: str) -> None:
    """Print the number of images of each class by part, where any class has some, and an empty line.

    Args:
        classes: class → part → number of images.
        parts: names of the parts, in the order of the columns.
        further: names of further columns, which are printed whatever is in them.
    """
    columns = [*(part for part in parts if any(part in row for row in classes.values())), *further]
    print_table("", ("class", *columns), [(name, *(row.get(c, 0) for c in columns)) for name, row in classes.items()])
    print_line()


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table for `show`; a cell may be a `Text`."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    rows = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        drawn.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(_visible(cell)) for cell in row))
    return drawn


def _visible(cell: object) -> str:
    """A cell's text; control characters of file names, which a terminal would obey, are escaped."""
    text = "" if cell is None else str(cell)
    return "".join(each if each >= " " or each == "\n" else each.encode("unicode_escape").decode() for each in text)


def is_first_rank() -> bool:
    """Whether this process prints; of the ranks that torchrun started, one does."""
    try:
        return launched_ranks()[0] == 0
    except LensmithError:  # which is reported, and by this process, too
        return True


def number(value: float | None, form: str = ".4f") -> str:
    """A number as text for a table's cell; a dash for None."""
    return "–" if value is None else format(value, form)


def show(drawn: RenderableType) -> None:
    """Print what rich can render."""
    _console().print(drawn, highlight=False)


def _console() -> Console:
    # Into a pipe rich would cut lines at 80 columns.
    return Console(width=None if sys.stdout.isatty() else 160)


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else plain(value)
