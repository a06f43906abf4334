"""Runs tracked in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given

if TYPE_CHECKING:
    from lensmith.tracking.recent import TrackedRun
    from lensmith.tracking.sync import SyncResult


@documented(config.TrackSettings)
def track_ui(
    *,
    host: str = default("127.0.0.1"), port: int = default(5000),
) -> None:  # fmt: skip
    """Serve MLflow's pages on this machine until stopped."""
    settings = config.TrackSettings.resolve(given(locals()))
    from lensmith.tracking.ui import ui as run

    run(settings)


def tracked_runs(limit: int = 20) -> Sequence[TrackedRun]:
    """List the runs that were tracked last, the newest first."""
    from lensmith.tracking.recent import recent

    return recent(limit)


def sync_runs(runs: Iterable[StrPath] = ()) -> SyncResult:
    """Send MLflow what did not arrive, of these run folders or of all in runs/."""
    from lensmith.tracking.sync import sync as run

    return run([Path(folder) for folder in runs])
