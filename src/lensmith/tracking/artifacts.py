"""A run's files in MLflow: pictures, and the bundle with its report and figures.

A bundle lies under its own digest, where `lensmith registry push` finds it and lets a version point: a later export of
the same run must not change it. What is sent again replaces the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.core.files import sha256
from lensmith.errors import BundleError
from lensmith.registry.models import RUN_TAG, place
from lensmith.tracking.mlflow_events import MAX_TAG, MetricPoint

if TYPE_CHECKING:
    from mlflow import MlflowClient

PICTURES = ("curves.png", "memory.png")
REPORT = "report.html"


def send_pictures(client: MlflowClient, run_id: str, run: Path) -> None:
    """The curves, and memory and chunks, as far as they are drawn."""
    for picture in (run / name for name in PICTURES):
        if picture.exists():
            client.log_artifact(run_id, str(picture))


def send_bundle(client: MlflowClient, run_id: str, bundle: Path, at_ms: int) -> list[MetricPoint]:
    """A bundle's folder, its report beside it, and the tag that says where.

    Args:
        client: of the tracking server.
        run_id: of the run.
        bundle: its folder; one that has been removed or packed since, or is damaged, is left out.
        at_ms: Unix time of the export in milliseconds.

    Returns:
        What it was found to be worth, to be logged.
    """
    if not (bundle / MANIFEST).is_file():
        return []
    content = sha256(bundle / MANIFEST)
    try:
        manifest = Bundle.load(bundle).manifest
    except BundleError as error:  # trying again would not mend it
        client.set_tag(run_id, "bundle", f"left out: {error}"[:MAX_TAG])
        return []
    client.log_artifacts(run_id, str(bundle), place(content))
    if (bundle / REPORT).is_file():
        client.log_artifact(run_id, str(bundle / REPORT))
    client.set_tag(run_id, f"{RUN_TAG}{content[:16]}", place(content))
    step = int(manifest.recipe.get("best_epoch") or 0)
    engine = manifest.engines[0]
    figures: dict[str, Any] = {**manifest.metrics, "latency_ms": engine.latency_ms, "bytes": engine.bytes}
    return [
        MetricPoint(f"bundle/{name}", float(value), at_ms, step)
        for name, value in figures.items()
        if isinstance(value, (int, float))
    ]
