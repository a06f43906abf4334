"""`lensmith feedback`: uploads that a service has stored, and their true labels."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.label_export import print_export
from lensmith.cli.options import Output, group
from lensmith.cli.output import SHOWN, can_ask, is_confirmed, print_line, print_notes, print_table
from lensmith.errors import SettingsError

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of `lensmith serve --keep`.")]


def show(folder: _Folder) -> Output:
    """Count stored uploads by predicted class, reason and true label."""
    found = api.FeedbackFolder(folder).summary()
    yield found
    print_line((str(found.folder), "bold"), f": {found.uploads:,} uploads, {found.bytes / 1e6:,.1f} MB")
    if not found.uploads or found.oldest is None or found.newest is None:
        return
    reasons = list(found.reasons)
    rows = [
        (label, *(row.get(name, 0) for name in ("kept", *reasons, "labelled"))) for label, row in found.labels.items()
    ]
    print_table("", ("class", "predicted", *reasons, "true label"), rows)
    print_line()
    print_line(f"{found.labelled:,} have a true label, {found.right:,} of them as predicted.")
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
    relabel: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Labels of a review: the manifest that `lensmith review FOLDER` wrote."),
    ] = None,
    exclude: Annotated[Path | None, typer.Option(metavar="PATH", help="Uploads that the review left out.")] = None,
    format_: Annotated[
        Literal["folder", "label-studio", "cvat", "coco"],
        typer.Option("--format", help="An image folder, or files for a labelling tool that name all uploads."),
    ] = "folder",
) -> Output:
    """Make an image folder of the uploads with a true label, or files for a labelling tool.

    It has the layout OUT/LABEL that `lensmith train` reads. An image that was uploaded several times is copied once,
    and no file is replaced, so an export can be repeated as more labels come in. The uploads stay in their folder
    until the service or `lensmith feedback clear` deletes them.

    With --format label-studio, cvat or coco, OUT is a new folder with files that name all uploads, labelled or not: the
    model's answers are pre-annotations, and true labels annotations.
    """
    if format_ != "folder":
        folders_only = {"unlabelled": unlabelled, "relabel": relabel, "exclude": exclude}
        if given := [name for name, value in folders_only.items() if value is not None]:
            raise SettingsError(
                f"A folder alone was expected for --format {format_}, which names all uploads.",
                f"--{given[0]} was given as well.",
                "Leave it out, or export an image folder.",
            )
        exported = api.FeedbackFolder(folder).export_labels(out, format_)
        yield exported
        print_export(exported)
        return
    done = api.FeedbackFolder(folder).export(out, unlabelled, relabel=relabel, exclude=exclude)
    yield done
    written = sum(done.written.values())
    print_line((str(done.out), "bold"), f": {written:,} images added, {done.there:,} were there already")
    if done.written:
        print_table("", ("class", "added"), sorted(done.written.items()))
    if done.unlabelled:
        print_line(f"{done.unlabelled:,} without a true label are in {unlabelled}.")
    if done.unlabelled_there:
        print_line(f"Without a true label, and in {unlabelled} already: {done.unlabelled_there:,}.")
    if done.waiting:
        print_line(f"{done.waiting:,} have no true label; --unlabelled FOLDER copies them to be labelled.")
    if done.excluded:
        print_line(f"Left out, as the review decided: {done.excluded:,}.")
    print_notes((), done.warnings)
    if done.set_aside:
        print_table(f"{len(done.set_aside):,} not exported", ("file", "reason"), done.set_aside, SHOWN)
    if written:
        print_line(f"Next: lensmith data check {done.out}")
    elif done.unlabelled or done.unlabelled_there or done.waiting:
        print_line(
            f"Next: lensmith review {shlex.quote(str(folder))} --out labels.csv; "
            "then the same export with --relabel labels.csv"
        )


def clear(
    folder: _Folder,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete those older than this, as 30d or 12h.")
    ] = None,
    request_id: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Delete those of this request; can be repeated.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Delete all of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> Output:
    """Delete stored uploads with their records, after asking on a terminal, or with --yes.

    Exported copies stay; their names are the SHA-256 of the image.
    """
    from lensmith.feedback.folder import delete

    confirm = (lambda uploads, size: None) if yes else _ask
    done = delete(folder, older_than, request_id or (), all_, confirm)
    yield done
    print_line(f"{done.removed:,} removed, {done.bytes / 1e6:,.1f} MB freed; {done.left:,} are left.")


def _ask(uploads: int, size: int) -> None:
    """Ask on a terminal whether to delete `uploads` uploads of `size` bytes.

    Raises:
        SettingsError: there is no terminal to ask on.
        Exit: the answer was no.
    """
    if not uploads:
        return
    if not can_ask():
        raise SettingsError(
            "A confirmation was expected before anything is deleted.",
            f"{uploads:,} uploads of {size / 1e6:,.1f} MB would be deleted, and there is no terminal to ask on.",
            "Give --yes.",
        )
    if not is_confirmed(f"Delete {uploads:,} uploads, {size / 1e6:,.1f} MB?"):
        raise typer.Exit(1)


command = group(VERBS["feedback"], show=show, export=export, clear=clear)
