"""`lensmith track`: what trainings have told MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Json, function_for, group
from lensmith.cli.output import print_json, print_line, print_table
from lensmith.config import TrackSettings

_Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN", help="Run folders; all in runs/ by default."),
]


def ui(given: dict[str, Any]) -> None:
    """Start MLflow's pages on this machine: runs, their curves, bundles and models. Ctrl-C ends it.

    Shows what is where `tracking` in lensmith.yaml or LENSMITH_TRACKING_URI says, by default in runs/mlflow.db. Other
    machines see it only with `--host`, and MLflow asks nobody who they are.
    """
    api.track_ui(**given)


def sync(runs: _Runs = None, as_json: Json = False) -> None:
    """Send what did not arrive while the tracking server was away, and runs that were not tracked if they are named.

    Nothing is sent twice. Exits with 2 where something still does not arrive.
    """
    synced = api.sync_runs(runs or ())
    problem = synced.problem
    if as_json:
        print_json(synced.as_dict())
        if problem:  # said in the object; another one would make two of them
            print(f"lensmith: {problem}", file=sys.stderr)
            raise typer.Exit(problem.exit_code)
        return
    if not synced.runs:
        print_line("Nothing was left to send.")
        return
    rows = [(sent.run, sent.run_id, sent.bytes, sent.problem or "all has arrived") for sent in synced.runs]
    print_table("", ("run", "MLflow run", "bytes sent", "state"), rows)
    if problem:
        raise problem


def list_(
    limit: Annotated[int, typer.Option(metavar="INT", min=1, max=1000, help="Runs at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List the runs that were tracked last, with their best accuracy on the validation part."""
    found = api.tracked_runs(limit)
    if as_json:
        print_json({"runs": [run.as_dict() for run in found]})
        return
    if not found:
        print_line("No run has been tracked.")
        return
    rows = [
        (
            run.name,
            run.experiment,
            run.model,
            f"{run.began:%Y-%m-%d %H:%M}",
            run.status.lower(),
            run.best_epoch,
            "–" if run.best_val_accuracy is None else f"{run.best_val_accuracy:.4f}",
            "–" if run.bundle_accuracy is None else f"{run.bundle_accuracy:.4f}",
        )
        for run in found
    ]
    columns = ("run", "experiment", "backbone", "began (UTC)", "status", "best epoch", "validation", "bundle")
    print_table("", columns, rows)


command = group(VERBS["track"], ui=function_for(TrackSettings, ui), sync=sync, list=list_)
