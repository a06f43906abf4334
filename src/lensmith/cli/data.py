"""`lensmith data`: fetch, check and split image folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
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
    say((str(fetched.folder), "bold"), f": {fetched.classes} classes, {images} ({state})")
    say(f"Source: {fetched.source}")
    say(f"Next: lensmith data check {fetched.folder}")


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
    rows = [(label, *(row.get(part, 0) for part in columns)) for label, row in checked.counts.items()]
    say((str(folder), "bold"), f": {checked.usable:,} usable images of {checked.images:,}")
    table("", ("class", *columns), rows)
    say()
    for name, side in (("width", checked.width), ("height", checked.height)):
        if side:
            say(f"{name:7} {side.min} to {side.max} pixels, median {side.median:g}")
    for name, found in (("formats", checked.formats), ("modes", checked.modes)):
        say(f"{name:7} {', '.join(f'{key} {count:,}' for key, count in found.items())}")
    for note in checked.notes:
        say(note)
    if checked.findings:
        say()
        shown = [(finding.kind, finding.path, finding.reason) for finding in checked.findings[:SHOWN]]
        table(f"{checked.problems:,} files with something wrong", ("what", "file", "reason"), shown)
        if checked.problems > SHOWN:
            say(f"… and {checked.problems - SHOWN:,} more; --json names all")
    for warning in checked.warnings:
        say(("Warning: ", "yellow"), warning)
    if not checked.findings and not checked.warnings:
        say(("Nothing wrong was found.", "green"))


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
    rows = [(label, *(row.get(part, 0) for part in columns)) for label, row in done.classes.items()]
    say((str(done.manifest), "bold"), f": {'written' if done.written else 'was there already, the same'}")
    table("", ("class", *columns), rows)
    say()
    for note in done.notes:
        say(note)


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
