"""`lensmith cache`: features, pixels, answers and measurements that runs share."""

from typing import Annotated, Literal

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Output, group
from lensmith.cli.output import print_line, print_table


def list_() -> Output:
    """List cached features, pixels and answers.

    The least recently used come first, and are removed first.
    """
    usage = api.list_cache()
    yield usage
    rows = [
        (entry.kind, f"{entry.bytes / 1e6:,.1f}", _ago(entry.age_s), "" if entry.whole else "unfinished", entry.title)
        for entry in usage.entries
    ]
    print_table("", ("kind", "MB", "last used", "", "what"), rows)
    print_line(
        f"{usage.bytes / 1e9:.2f} GB in {usage.folder}; runs take up to {usage.budget_bytes / 1e9:.1f} GB (--cache-gb)."
    )


def clear(
    kind: Annotated[
        Literal["features", "pixels", "answers", "measured"] | None,
        typer.Argument(
            metavar="KIND",
            help="features, pixels, answers (of bundles), or measured (fastest engine or precision); all by default.",
        ),
    ] = None,
) -> Output:
    """Clear the cache.

    The next run computes or measures again what it needs. Downloads, and entries that a process is computing, stay.
    """
    cleared = api.clear_cache(kind)
    yield cleared
    print_line(f"{cleared.removed:,} removed, {cleared.bytes / 1e9:.2f} GB freed.")
    for title in cleared.busy:
        print_line(f"still there, since a process is computing it: {title}")


def _ago(seconds: float) -> str:
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"


command = group(VERBS["cache"], list=list_, clear=clear)
