"""`--resume auto`: which run the same command line, given again, goes on with."""

from __future__ import annotations

import shutil
from pathlib import Path

from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training.run_dir import diff
from lensmith.training.run_dir.lock import held
from lensmith.training.run_dir.run import DESCRIPTION, RUNS, Run, is_unbegun


def find(settings: TrainSettings) -> Path | None:
    """The run folder to go on with, or None where one is to be begun.

    With `settings.out` it is that folder if a run is there, finished or not. Without, it is the newest unfinished run
    in runs/ that has the same data folder and settings. What a run left that was stopped before its first checkpoint
    is removed.

    Raises:
        RunError: another process is beginning a run there.
    """
    if settings.out is None:
        return _newest_like(settings)
    _clear(settings.out)
    return settings.out if (settings.out / DESCRIPTION).exists() else None


def _clear(path: Path) -> None:
    if is_unbegun(path):
        with held(path):
            if is_unbegun(path):  # still, now that nobody else is at it
                shutil.rmtree(path)


def _newest_like(settings: TrainSettings) -> Path | None:
    found = []
    for description in RUNS.glob(f"*/{DESCRIPTION}"):
        try:
            run = Run.open(description.parent)
        except RunError:  # another one's, or damaged: nothing to go on with
            continue
        same = run.source == settings.data.resolve() and not diff.of_settings(run.settings, dict(settings))
        if same and run.has_checkpoint and not (run.is_finished and run.bundle.exists()):
            found.append((description.stat().st_mtime, run.path))
    return max(found, default=(0.0, None))[1]
