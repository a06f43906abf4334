"""`lensmith data`: fetch, check and split image folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.main import get_command

from lensmith import api
from lensmith.cli.options import Json, function_for
from lensmith.cli.output import print_json, say, table
from lensmith.config import FetchSettings, SplitSettings

SHOWN = 20
"""Findings that are listed for people; --json has all."""

_PARTS = ("train", "val", "test")


def fetch(given: dict[str, Any], *, as_json: Json = False) -> None:
    """Make an image folder of a known set: fashion-mnist, cifar10, flowers102, pets or digits.

    Downloads are kept, checked by their hashes, and go on where they were cut; so does the writing of the folder.
    A folder that is finished already is left as it is.

    Example: `lensmith data fetch fashion-mnist data/fashion --max-train 6000 --max-test 2000`
    """
    fetched = api.fetch(**given)
    if as_json:
        print_json(fetched.as_dict())
        return
    images = ", ".join(f"{count:,} {part}" for part, count in fetched.counts.items())
    state = f"{fetched.written:,} images written" if fetched.written else "was finished already"
    say(f"[bold]{escape(str(fetched.folder))}[/bold]: {fetched.classes} classes, {images} ({state})")
    say(f"Source: {escape(fetched.source)}")
    say(f"Next: lensmith data check {escape(str(fetched.folder))}")


def check(
    folder: Annotated[Path, typer.Argument(help="Image folder, or a CSV of path,label[,split].", show_default=False)],
    as_json: Json = False,
) -> None:
    """Look at every file: counts, sizes, formats, and each one that is unreadable, empty, no image or a copy.

    Copies are files with the same content; those under two classes, or in two parts, come first. Nothing is changed.
    """
    checked = api.check(folder)
    if as_json:
        print_json(checked.as_dict())
        return
    columns = [part for part in (*_PARTS, "all") if any(part in row for row in checked.counts.values())]
    rows = [(escape(label), *(row.get(part, 0) for part in columns)) for label, row in checked.counts.items()]
    say(f"[bold]{escape(str(folder))}[/bold]: {checked.usable:,} usable images of {checked.images:,}")
    table("", ("class", *columns), rows)
    say()
    for name, side in (("width", checked.width), ("height", checked.height)):
        if side:
            say(f"{name:7} {side.min} to {side.max} pixels, median {side.median:g}")
    for name, found in (("formats", checked.formats), ("modes", checked.modes)):
        say(f"{name:7} {', '.join(f'{key} {count:,}' for key, count in found.items())}")
    for note in checked.notes:
        say(escape(note))
    if checked.findings:
        say()
        shown = [(finding.kind, escape(finding.path), escape(finding.reason)) for finding in checked.findings[:SHOWN]]
        table(f"{checked.problems:,} files with something wrong", ("what", "file", "reason"), shown)
        if checked.problems > SHOWN:
            say(f"… and {checked.problems - SHOWN:,} more; --json names all")
    for warning in checked.warnings:
        say(f"[yellow]Warning:[/yellow] {escape(warning)}")
    if not checked.findings and not checked.warnings:
        say("[green]Nothing wrong was found.[/green]")


def split(given: dict[str, Any], *, as_json: Json = False) -> None:
    """Write a manifest that gives every image a part, without copying a file.

    Each class is divided by the ratio to within one image, in a seeded order. Parts that the folder brings are kept;
    one without a validation part gets it from the training part, never from the test part. `lensmith train`,
    `evaluate` and `check` read the manifest in place of the folders.
    """
    done = api.split(**given)
    if as_json:
        print_json(done.as_dict())
        return
    columns = [part for part in _PARTS if part in done.counts]
    rows = [(escape(label), *(row.get(part, 0) for part in columns)) for label, row in done.classes.items()]
    say(f"[bold]{escape(str(done.manifest))}[/bold]: {'written' if done.written else 'was there already, the same'}")
    table("", ("class", *columns), rows)
    say()
    for note in done.notes:
        say(escape(note))


_app = typer.Typer(
    help="Fetch, check and split image folders.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_app.command()(function_for(FetchSettings, fetch))
_app.command()(check)
_app.command()(function_for(SplitSettings, split))
command = get_command(_app)
