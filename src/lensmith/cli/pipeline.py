"""`lensmith pipeline`: the stages from images to a release, of which those that have changed are run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Json, Output, group
from lensmith.cli.output import exit_with, print_json, print_line, print_table

if TYPE_CHECKING:
    from lensmith.workflows.pipeline.run import StageResult

_MARKS = {
    "done": ("✓", "green"), "unchanged": ("=", "green"), "failed": ("✗", "bold red"), "stopped": ("!", "yellow"),
    "running": ("…", "blue"), "to do": ("·", "bright_black"), "off": ("–", "bright_black"),
}  # fmt: skip
SHOWN = 15
"""Number of the gate's limits in the table, failed ones first; --json and gate.json have all."""

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline, in YAML.")]
_Folder = Annotated[
    Path | None, typer.Option("--out", metavar="PATH", help="Its folder; runs/pipelines/NAME by default.")
]


def run(
    file: _File = Path("pipeline.yaml"),
    force: Annotated[
        str | None, typer.Option("--force", metavar="STAGE", help="Run this stage again, and those that depend on it.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")] = None,
    out: _Folder = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline.

    Its stages are: check data → split → train → evaluate → export → gate → register → roll out. A stage whose settings
    and inputs have not changed is not run again; a killed run is resumed. All mistakes of the file are reported before
    anything runs. Exits with 2 on bad input, with 3 if the gate refuses the model.

    Example: `lensmith pipeline run examples/pipeline.yaml`
    """
    ran = api.pipeline(file, out=out, force=force, until=until, on_progress=None if as_json else _print_stage)
    error = ran.error
    if as_json:
        print_json(ran)
        if error:
            exit_with(error)
        return
    if error:
        raise error
    states = [stage.state for stage in ran.stages]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("done", "unchanged", "to do") if state in states)
    print_line((ran.name, "bold"), f": {counts}, {ran.seconds:.1f} s; everything is in {ran.folder}")


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline's file, or its folder.")] = Path(
        "pipeline.yaml"
    ),
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="PATH", help="Its folder, where it is not runs/pipelines/NAME.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="Also write a Mermaid flowchart: FILE.mmd or FILE.md.")
    ] = None,
) -> Output:
    """Show the state of each stage, and what a run would do now.

    Nothing is run.

    Example: `lensmith pipeline show examples/pipeline.yaml --out pipeline.md`
    """
    found = api.show_pipeline(file, folder=folder, out=out)
    yield found
    from lensmith.workflows.pipeline.show import STAGE_TITLES, duration

    print_line((found.name, "bold"), f"  {found.source}" + (f", last run {found.started}" if found.started else ""))
    for number, outcome in enumerate(found.stages):
        if number:
            print_line(("  │", "bright_black"))
        took = duration(outcome.seconds) if outcome.seconds is not None else ""
        title = STAGE_TITLES.get(outcome.stage, outcome.stage)
        mark, style = _MARKS[outcome.state]
        key = outcome.key if outcome.state != "off" else ""
        print_line(
            "  ", (mark, style), f" {title:11} ", (f"{outcome.state:10}", style), f"{took:>12}  ", (key, "bright_black")
        )
        if outcome.message:
            print_line(("  │  " if number + 1 < len(found.stages) else "     ", "bright_black"), outcome.message)
    if out:
        print_line(f"flowchart in {out}")


def _print_stage(outcome: StageResult) -> None:
    """A line when a stage begins, where somebody looks on, and one when it is over; the gate's limits as a table."""
    if outcome.state == "running":
        if sys.stderr.isatty():
            print(f"… {outcome.stage}", file=sys.stderr, flush=True)
        return
    took = f"{outcome.seconds:.1f} s" if outcome.seconds is not None and outcome.state != "unchanged" else ""
    mark, style = _MARKS[outcome.state]
    print_line((mark, style), f" {outcome.stage:9} ", (f"{outcome.state:10}", style), f"{took:>9}  {outcome.message}")
    if outcome.stage == "gate" and outcome.state != "unchanged" and (limits := outcome.values.get("limits")):
        from lensmith.workflows.pipeline.limits import COLUMNS, table_rows

        print_table("", COLUMNS, table_rows(limits[:SHOWN]))
        if len(limits) > SHOWN:
            print_line(f"… and {len(limits) - SHOWN:,} more; gate.json has all")
        for note in outcome.values["notes"]:
            print_line(("Note: ", "yellow"), note)


command = group(VERBS["pipeline"], run=run, show=show)
