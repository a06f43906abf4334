"""`lensmith models`: the backbones that `--model` takes."""

from typing import Annotated, Literal

import typer

from lensmith import api
from lensmith.cli.options import Output, make_command
from lensmith.cli.output import print_line, print_table

SHOWN_ROWS = 40


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Part of a name, or a glob such as '*lite*'.")
    ] = "*",
    max_params: Annotated[
        float | None,
        typer.Option("--max-params", metavar="FLOAT", min=0, help="Largest number of parameters, in millions."),
    ] = None,
    suited: Annotated[
        Literal["cpu", "gpu", "edge"] | None,
        typer.Option("--for", metavar="cpu|gpu|edge", help="A few that suit such a machine, the best first."),
    ] = None,
) -> Output:
    """List the backbones, and whether their weights are on this machine.

    Parameters include the original head. Weights come with a pip package, or from the hub when a run needs them.
    """
    found = api.models(pattern, max_params=max_params, suited=suited)
    yield {"count": len(found), "backbones": found}
    last = "why" if suited else "family"
    rows = [
        (
            backbone.name,
            backbone.params_millions,
            backbone.image_size,
            backbone.source,
            "yes" if backbone.on_this_machine else "",
            backbone.advice[suited] if suited else backbone.family,
        )
        for backbone in found[:SHOWN_ROWS]
    ]
    print_table(
        f"{len(found):,} backbone{'' if len(found) == 1 else 's'}",
        ("name", "million parameters", "pixels", "weights", "here", last),
        rows,
    )
    if len(found) > SHOWN_ROWS:
        print_line(f"… and {len(found) - SHOWN_ROWS:,} more; narrow the pattern, or see all with --json.")


command = make_command(models)
