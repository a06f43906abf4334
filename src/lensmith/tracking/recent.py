"""Tracked runs: a list of the latest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lensmith.core.result import Result
from lensmith.registry import client as store
from lensmith.registry.mlflow_errors import translate_errors
from lensmith.tracking.address import require_installed
from lensmith.tracking.sender import KEY


@dataclass(frozen=True)
class TrackedRun(Result):
    """A run in MLflow.

    Attributes:
        name: name of the run folder.
        run_id: id of the MLflow run.
        experiment: name of the data folder.
        status: RUNNING, FINISHED, KILLED (interrupted; can be resumed) or FAILED.
        began: time of the start, in UTC.
        model: name of the backbone.
        best_epoch: best epoch, from 1 on; None before the first has ended.
        best_val_accuracy: validation accuracy of that epoch, 0..1; None without validation.
        bundle_accuracy: accuracy of the exported bundle's engine, 0..1; None without an export.
        folder: HOST:PATH of the run folder.
    """

    name: str
    run_id: str
    experiment: str
    status: str
    began: datetime
    model: str
    best_epoch: int | None
    best_val_accuracy: float | None
    bundle_accuracy: float | None
    folder: str


def recent(limit: int) -> Sequence[TrackedRun]:
    """The latest `limit` runs of lensmith, the newest first.

    Raises:
        RegistryError: the settings have no tracking URI, or there is no database.
        RegistryUnreachableError: the tracking server does not answer.
        MissingPackageError: MLflow is not installed.
    """
    require_installed()
    address = store.uri()
    client = store.client(address, create=False)
    with translate_errors(address):
        names = {one.experiment_id: one.name for one in client.search_experiments()}
        found = client.search_runs(
            list(names), f"tags.`{KEY}` != ''", max_results=limit, order_by=["attributes.start_time DESC"]
        )
        return [_of(run, names[run.info.experiment_id]) for run in found]


def _of(run: Any, experiment: str) -> TrackedRun:
    metrics, tags = run.data.metrics, run.data.tags
    best = metrics.get("best_epoch")
    return TrackedRun(
        name=run.info.run_name,
        run_id=run.info.run_id,
        experiment=experiment,
        status=run.info.status,
        began=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        model=run.data.params.get("model", ""),
        best_epoch=None if best is None else int(best),
        best_val_accuracy=metrics.get("best_val_accuracy"),
        bundle_accuracy=metrics.get("bundle/accuracy"),
        folder=tags.get("lensmith.run", ""),
    )
