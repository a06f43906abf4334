"""`lensmith feedback`: uploads that a service has kept, and their true labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Json, group
from lensmith.cli.output import print_json, print_line, print_table

SHOWN = 20
"""Files that were set aside and are listed for people; --json has all."""

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="What `lensmith serve --keep` has.")]


def show(folder: _Folder, as_json: Json = False) -> None:
    """Count the kept uploads by class: what they were taken for, why they were kept, and how many have a true label."""
    found = api.FeedbackFolder(folder).summary()
    if as_json:
        print_json(found.as_dict())
        return
    print_line((str(found.folder), "bold"), f": {found.uploads:,} uploads, {found.bytes / 1e6:,.1f} MB")
    if not found.uploads or found.oldest is None or found.newest is None:
        return
    reasons = list(found.reasons)
    rows = [
        (label, *(row.get(name, 0) for name in ("kept", *reasons, "labelled"))) for label, row in found.labels.items()
    ]
    print_table("", ("class", "answered so", *reasons, "truly so"), rows)
    print_line()
    print_line(f"{found.labelled:,} have a true label, {found.right:,} of them as they were answered.")
    print_line(f"From {found.oldest:%Y-%m-%d %H:%M} to {found.newest:%Y-%m-%d %H:%M} UTC.")


def export(
    folder: _Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder, or an image folder to add to.")],
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Copy those without a true label here, by predicted class, with an index.csv."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an image folder of the uploads whose true label is known: OUT/LABEL, as `lensmith train` reads it.

    A picture that came several times is copied once, and no file is replaced, so an export can be repeated as more
    labels come in. The uploads stay where they are, until the service removes them or `lensmith feedback clear` does.
    """
    done = api.FeedbackFolder(folder).export(out, unlabelled)
    if as_json:
        print_json(done.as_dict())
        return
    written = sum(done.written.values())
    print_line((str(done.out), "bold"), f": {written:,} images added, {done.there:,} were there already")
    if done.written:
        print_table("", ("class", "added"), sorted(done.written.items()))
    if done.unlabelled:
        print_line(f"{done.unlabelled:,} without a true label are in {unlabelled}.")
    if done.waiting:
        print_line(f"{done.waiting:,} have no true label; --unlabelled FOLDER copies them to be labelled.")
    if done.set_aside:
        print_table(f"{len(done.set_aside):,} not exported", ("file", "reason"), done.set_aside[:SHOWN])
    if written:
        print_line(f"Next: lensmith data check {done.out}")


def clear(
    folder: _Folder,
    older_than: Annotated[str | None, typer.Option(help="Those that were answered longer ago, as 30d or 12h.")] = None,
    request_id: Annotated[
        list[str] | None,
        typer.Option(help="Those of this request; again for each."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: Json = False,
) -> None:
    """Delete kept uploads, with all that is known of them.

    Copies that were exported before are not looked for; they are named by the SHA-256 of the picture.
    """
    done = api.FeedbackFolder(folder).delete(older_than=older_than, request_ids=request_id or (), everything=all_)
    if as_json:
        print_json(done.as_dict())
        return
    print_line(f"{done.removed:,} removed, {done.bytes / 1e6:,.1f} MB freed; {done.left:,} are left.")


command = group(VERBS["feedback"], show=show, export=export, clear=clear)
