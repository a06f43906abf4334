"""Artifacts of a run in MLflow: plots, and the bundle with its report and metrics.

A bundle is logged under its own hash, where `lensmith registry push` finds it for a version: a later export of the same
run must not change it. Files that are sent again replace themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.core.files import sha256
from lensmith.errors import BundleError
from lensmith.registry.models import RUN_TAG, artifact_path
from lensmith.tracking.mlflow_events import MAX_TAG, MetricPoint

if TYPE_CHECKING:
    from mlflow import MlflowClient

PICTURES = ("curves.png", "memory.png")
REPORT = "report.html"


def send_pictures(client: MlflowClient, run_id: str, run: Path) -> None:
    """Log the plots of a run folder that exist: curves, and memory with chunks."""
    for picture in (run / name for name in PICTURES):
        if picture.exists():
            client.log_artifact(run_id, str(picture))


def send_bundle(client: MlflowClient, run_id: str, bundle: Path, at_ms: int) -> list[MetricPoint]:
    """Log a bundle and its report, and tag the run with the path.

    Args:
        client: connection to the tracking server.
        run_id: id of the MLflow run.
        bundle: folder of the bundle; one that is missing or damaged by now is left out.
        at_ms: Unix time of the export, in milliseconds.

    Returns:
        The bundle's metrics, which the caller logs.
    """
    if not (bundle / MANIFEST).is_file():
        return []
    content = sha256(bundle / MANIFEST)
    try:
        manifest = Bundle.load(bundle).manifest
    except BundleError as error:  # a retry would fail, too
        client.set_tag(run_id, "bundle", f"left out: {error}"[:MAX_TAG])
        return []
    client.log_artifacts(run_id, str(bundle), artifact_path(content))
    if (bundle / REPORT).is_file():
        client.log_artifact(run_id, str(bundle / REPORT))
    client.set_tag(run_id, f"{RUN_TAG}{content[:16]}", artifact_path(content))
    step = int(manifest.recipe.get("best_epoch") or 0)
    engine = manifest.engines[0]
    figures: dict[str, Any] = {**manifest.metrics, "latency_ms": engine.latency_ms, "bytes": engine.bytes}
    return [
        MetricPoint(f"bundle/{name}", float(value), at_ms, step)
        for name, value in figures.items()
        if isinstance(value, (int, float))
    ]
