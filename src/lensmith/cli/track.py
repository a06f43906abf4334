"""`lensmith track`: training runs in MLflow."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lensmith import api
from lensmith.cli import VERBS
from lensmith.cli.options import Output, function_for, group
from lensmith.cli.output import number, print_line, print_table
from lensmith.config import TrackSettings

_Runs = Annotated[list[Path] | None, typer.Argument(metavar="RUN", help="Run folders; all in runs/ by default.")]


def ui(given: dict[str, Any]) -> None:
    """Start MLflow's web pages: runs, their curves, bundles and models. Ctrl-C stops them.

    They show the store that `tracking` in lensmith.yaml or LENSMITH_TRACKING_URI names, by default runs/mlflow.db.
    Other machines reach them only with `--host`; MLflow has no authentication.
    """
    api.track_ui(**given)


def sync(runs: _Runs = None) -> Output:
    """Send what the tracking server did not receive.

    With RUN, also runs that were not tracked. Nothing is sent twice. Exits with 2 if something still does not arrive.
    """
    synced = api.sync_runs(runs or ())
    yield synced
    if not synced.runs:
        print_line("Everything had been sent.")
        return
    rows = [(sent.run, sent.run_id, sent.bytes, sent.problem or "complete") for sent in synced.runs]
    print_table("", ("run", "MLflow run", "bytes sent", "state"), rows)
    if synced.problem:
        raise synced.problem


def list_(
    limit: Annotated[int, typer.Option(metavar="INT", min=1, max=1000, help="Largest number of runs.")] = 20,
) -> Output:
    """List the latest tracked runs, with their best validation accuracy."""
    found = api.tracked_runs(limit)
    yield {"runs": found}
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
            number(run.best_val_accuracy),
            number(run.bundle_accuracy),
        )
        for run in found
    ]
    columns = ("run", "experiment", "backbone", "began (UTC)", "status", "best epoch", "validation", "bundle")
    print_table("", columns, rows)


command = group(VERBS["track"], ui=function_for(TrackSettings, ui), sync=sync, list=list_)
