"""Progress bars for long work: on standard error, and only where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def watched() -> bool:
    """Whether standard error is a terminal, so that a moving bar makes sense."""
    return sys.stderr.isatty()


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` behind a bar titled `what`; `total` where the length cannot be asked for."""
    if not watched():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=what)
