"""`--resume auto`: finds the run that the same command line, given again, resumes."""

import shutil
from pathlib import Path

from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training.run_dir import diff
from lensmith.training.run_dir.description import DESCRIPTION
from lensmith.training.run_dir.lock import locked_run
from lensmith.training.run_dir.run import RUNS, Run, is_unbegun


def find(settings: TrainSettings) -> Path | None:
    """The run folder to resume; None: a new run is to be started.

    With `settings.out` it is that folder if a run is there, finished or not. Without, it is the newest unfinished run
    in runs/ that has the same data folder and settings. The folder of a run that was stopped before its first
    checkpoint is removed.

    Raises:
        RunError: another process is starting a run there.
    """
    if settings.out is None:
        return _newest_like(settings)
    if is_unbegun(settings.out):
        with locked_run(settings.out):
            if is_unbegun(settings.out):  # still, now that no other process works on it
                shutil.rmtree(settings.out)
    return settings.out if (settings.out / DESCRIPTION).exists() else None


def _newest_like(settings: TrainSettings) -> Path | None:
    found = []
    for description in RUNS.glob(f"*/{DESCRIPTION}"):
        try:
            run = Run.open(description.parent)
        except RunError:  # of another version, or damaged
            continue
        same = run.source == settings.data.resolve() and not diff.of_settings(run.settings, dict(settings))
        begun = run.has_checkpoint or run.folds.is_dir()
        if same and begun and not (run.is_finished and run.bundle.exists()):
            found.append((description.stat().st_mtime, run.path))
    return max(found, default=(0.0, None))[1]
