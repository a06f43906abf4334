"""Progress bars on standard error, shown only in a terminal."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def is_terminal() -> bool:
    """Whether standard error is a terminal, which can show a progress bar."""
    return sys.stderr.isatty()


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show a progress bar; `total` is their number where `len(items)` does not exist."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    with watching(title) as watch:
        for done, item in enumerate(items, 1):
            yield item
            watch(done, total)


@contextmanager
def watching(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function to call with the number of items done and of all, which shows them in a progress bar."""
    if not is_terminal():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
