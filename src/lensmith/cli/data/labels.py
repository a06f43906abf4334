"""`lensmith data doctor` and `lensmith data next`: which labels to look at, and which pictures to label."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lensmith import api
from lensmith.cli.options import Output
from lensmith.cli.output import SHOWN, print_line, print_notes, print_table
from lensmith.core.text import listed


def label_doctor(given: dict[str, Any]) -> Output:
    """Find wrong labels, poor pictures, and classes that need more images or are hard to tell apart.

    A linear head on features of a frozen backbone evaluates each label without having seen it; no network is trained,
    and nothing is changed. Writes a page (report.html), a work list for `lensmith review` (suspects.csv; `--exclude` of
    split and train leaves its flagged pictures out) and nearly certain corrections for `--relabel` (relabel.csv).

    `lensmith doctor`, without `data`, checks this machine instead.

    Example: `lensmith data doctor photos/`, then `lensmith review doctor/photos/suspects.csv`
    """
    found = api.label_doctor(**given)
    yield found
    print_line((str(found.folder), "bold"), f": {found.images:,} images of {found.classes:,} classes")
    for line in found.summary():
        print_line(line)
    if found.flagged:
        rows = [(each.path, each.label, each.suggested, f"{each.score:.0%}") for each in found.flagged]
        print_line()
        print_table("Labels that are probably wrong", ("picture", "label", "suggested", "probability"), rows, SHOWN)
    if found.quality or found.outliers:
        poor = [(str(each.kind), each.path, each.reason) for each in found.quality]
        poor += [("outlier", each.path, f"{each.reason}; labelled {each.label}") for each in found.outliers]
        print_line()
        print_table("Pictures to look at", ("what", "picture", "reason"), poor, SHOWN)
    print_line()
    named = listed((path for path, _ in found.unreadable), 3)
    unreadable = [f"Files that cannot be read: {len(found.unreadable):,} ({named})."] if found.unreadable else []
    print_notes(found.notes, [*unreadable, *found.warnings])
    print_line("Page: ", (str(found.report), "bold"), f" ({found.seconds:.1f} s)")
    if found.suspects:
        print_line(f"Next: lensmith review {shlex.quote(f'{found.out}/suspects.csv')}")


def next_labels(
    pictures: Annotated[
        Path, typer.Argument(metavar="PICTURES", help="Folder of pictures, or a CSV or text file that names them.")
    ],
    run: Annotated[
        Path, typer.Option(help="Run folder or bundle of the model, or NAME@ALIAS; required.", metavar="PATH")
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="Number of pictures to choose.", metavar="INT")] = 100,
    out: Annotated[Path, typer.Option(help="Work list to write.", metavar="PATH")] = Path("next.csv"),
) -> Output:
    """Choose the unlabelled pictures whose labels would teach a model most (active learning).

    These are the ones between whose two likeliest classes the model decides with the smallest margin, and that differ
    from each other. Pictures that the model knows by their content, and copies, are left out.

    Example: `lensmith data next photos/ --run runs/flowers -n 100`, then `lensmith review next.csv`
    """
    chosen = api.next_labels(pictures, run, count=count, out=out)
    yield chosen
    rows = [(each.path, each.suggested, each.runner_up, f"{each.score:.3f}") for each in chosen.pictures]
    title = f"{len(chosen.pictures):,} of {chosen.found:,} pictures to label next, the least sure first"
    print_table(title, ("picture", "likeliest", "or", "1 − margin"), rows, SHOWN)
    left = (("known to the model", chosen.known), ("copies", chosen.copies), ("unreadable", len(chosen.unreadable)))
    if named := ", ".join(f"{what} {number:,}" for what, number in left if number):
        print_line(f"Left out: {named}.")
    print_notes(chosen.notes)
    print_line(f"Next: lensmith review {shlex.quote(str(chosen.out))}")
