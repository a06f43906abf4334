"""The runs that were tracked last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lensmith.errors import MissingPackageError
from lensmith.registry import client as store
from lensmith.tracking.address import installed
from lensmith.tracking.sender import KEY


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow has it.

    Attributes:
        name: of its folder.
        run_id: MLflow's.
        experiment: the data folder's name.
        status: RUNNING, FINISHED, KILLED (stopped, to be gone on with) or FAILED.
        began: in UTC.
        model: backbone.
        best_epoch: 1-based; None: no epoch has ended.
        best_val_accuracy: of that epoch, 0..1; None: nothing to validate on.
        bundle_accuracy: of the exported bundle's engine; None: none was exported.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "began": self.began.isoformat()}


def recent(limit: int) -> Sequence[TrackedRun]:
    """The runs of lensmith that began last, the newest first.

    Raises:
        RegistryError: no tracking URI, or no database there.
        UnreachableError: it does not answer.
        MissingPackageError: MLflow is not installed.
    """
    if not installed():
        raise MissingPackageError.of(ModuleNotFoundError(name="mlflow"))
    address = store.uri()
    client = store.client(address, create=False)
    with store.problems(address):
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
