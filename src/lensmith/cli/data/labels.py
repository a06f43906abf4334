"""`lensmith data next`: which pictures to label next."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith import api
from lensmith.cli.options import Output
from lensmith.cli.output import print_line, print_table

SHOWN = 20
"""Number of pictures in a table; --json has all."""


def next_labels(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures, or a CSV or text file that names them.")],
    run: Annotated[Path, typer.Option(help="Run folder or bundle of the model, or NAME@ALIAS.")],
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
    rows = [(each.path, each.suggested, each.runner_up, f"{each.score:.3f}") for each in chosen.pictures[:SHOWN]]
    title = f"{len(chosen.pictures):,} of {chosen.found:,} pictures to label next, the least sure first"
    print_table(title, ("picture", "likeliest", "or", "1 − margin"), rows)
    if len(chosen.pictures) > SHOWN:
        print_line(f"… and {len(chosen.pictures) - SHOWN:,} more")
    left = (("known to the model", chosen.known), ("copies", chosen.copies), ("unreadable", len(chosen.unreadable)))
    if named := ", ".join(f"{number:,} {what}" for what, number in left if number):
        print_line(f"Left out: {named}.")
    for note in chosen.notes:
        print_line(note)
    print_line(f"Next: lensmith review {chosen.out}")
