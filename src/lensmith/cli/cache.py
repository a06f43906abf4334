"""`lensmith cache`: what is kept from run to run."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Json, group
from lensmith.cli.output import print_json, print_line, print_table


def list_(as_json: Json = False) -> None:
    """Features and pixels that runs have kept for the next, the least recently used first; those go first."""
    kept = api.list_cache()
    if as_json:
        print_json(kept.as_dict())
        return
    rows = [
        (entry.kind, f"{entry.bytes / 1e6:,.1f}", _ago(entry.age_s), "" if entry.whole else "unfinished", entry.title)
        for entry in kept.entries
    ]
    print_table("", ("kind", "MB", "last used", "", "what"), rows)
    print_line(
        f"{kept.bytes / 1e9:.2f} GB in {kept.folder}; runs take up to {kept.budget_bytes / 1e9:.1f} GB (--cache-gb)."
    )


def clear(
    kind: Annotated[
        Literal["features", "pixels", "measured"] | None,
        typer.Argument(
            metavar="KIND", help="features, pixels, or measured (the fastest engine or precision); all by default."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove what is kept; the next run that needs it computes or measures it again. Downloads stay.

    What a running process is computing is left alone.
    """
    cleared = api.clear_cache(kind)
    if as_json:
        print_json(cleared.as_dict())
        return
    print_line(f"{cleared.removed:,} removed, {cleared.bytes / 1e9:.2f} GB freed.")
    for title in cleared.busy:
        print_line(f"left alone, since a process is computing it: {title}")


def _ago(seconds: float) -> str:
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"


command = group(VERBS["cache"], list=list_, clear=clear)
