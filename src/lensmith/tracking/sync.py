"""Sync: sends the events of runs that did not reach MLflow during the training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lensmith.config.values import without_password
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.errors import LensmithError, RegistryError, RunError
from lensmith.tracking.address import AUTO, require_installed, uri_of
from lensmith.tracking.run_reader import DESCRIPTION, is_training
from lensmith.tracking.state import NAME, TrackingState, unsent_state
from lensmith.tracking.uploader import GRACE_S, send_all

RUNS = Path("runs")
WHERE = ("*", "*/*", "pipelines/*/train/*/*")
"""Patterns of run folders in it: of trainings, the demo and pipelines."""


@dataclass(frozen=True)
class SyncedRun(Result):
    """A run that was checked, and sent if needed.

    Attributes:
        run: path of the run folder.
        uri: MLflow's tracking URI, without a password.
        run_id: id of the MLflow run; None if nothing has arrived.
        bytes: size of the events that were sent now; 0 if all had been sent before.
        problem: reason why not all has arrived; None if all has.
    """

    run: Path
    uri: str
    run_id: str | None
    bytes: int
    problem: str | None


@dataclass(frozen=True)
class SyncResult(Result):
    """All runs that were checked.

    Attributes:
        runs: the runs, sorted by name.
    """

    runs: tuple[SyncedRun, ...]

    @property
    def problem(self) -> LensmithError | None:
        """The error about runs that have not arrived completely; None without any."""
        missing = [synced for synced in self.runs if synced.problem]
        if not missing:
            return None
        return RegistryError(
            f"All events of {len(self.runs)} run{'s' * (len(self.runs) > 1)} were expected to arrive in MLflow.",
            f"Those of {listed(synced.run for synced in missing)} did not: {(missing[0].problem or '').rstrip('.')}.",
            "They stay in the run folder; repeat the command once the cause is removed.",
        )


def sync(runs: Iterable[Path] = ()) -> SyncResult:
    """Send what runs have not sent yet.

    Args:
        runs: run folders, also of runs that were not tracked; without any, all in runs/ that are incomplete.

    Raises:
        RunError: a folder is no run folder, or is being trained.
        RegistryError: there is no tracking URI.
        MissingPackageError: MLflow is not installed.
    """
    require_installed()
    named = list(runs)
    for run in named:
        _require(run)
    chosen = named or [run for run in _tracked() if unsent_state(run)]
    return SyncResult(tuple(_send(run) for run in track(chosen, "sending runs")))


def _require(run: Path) -> None:
    if not (run / DESCRIPTION).is_file():
        raise RunError(
            f"A run folder that `lensmith train` made was expected at {run}.",
            f"It holds no {DESCRIPTION}." if run.exists() else "There is none.",
            "Name run folders, or none for all in runs/.",
        )
    if is_training(run):
        raise RunError(
            f"A run that is not being trained was expected at {run}.",
            "A process is training it, and its tracking sidecar sends the events.",
            "Wait for its end.",
        )


def _tracked() -> list[Path]:
    return sorted({file.parent for where in WHERE for file in RUNS.glob(f"{where}/{NAME}")})


def _send(run: Path) -> SyncedRun:
    state = TrackingState.read(run)
    uri = uri_of(AUTO, state)
    assert uri is not None  # MLflow is installed
    if state is None:
        state = TrackingState.new(without_password(uri), run).write(run)
    before = state.offset
    problem = send_all(run, uri, GRACE_S + 10)
    state = TrackingState.read(run) or state
    return SyncedRun(run, state.uri, state.run_id, state.offset - before, problem)
