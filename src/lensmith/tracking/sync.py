"""What did not reach MLflow when it happened, sent later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.config.values import without_password
from lensmith.core.progress import track
from lensmith.errors import LensmithError, MissingPackageError, RegistryError, RunError
from lensmith.tracking.address import AUTO, installed, uri_of
from lensmith.tracking.run_reader import DESCRIPTION, RunReader
from lensmith.tracking.state import NAME, TrackingState
from lensmith.tracking.uploader import GRACE_S, send_all

RUNS = Path("runs")
WHERE = ("*", "*/*", "pipelines/*/train/*/*")
"""Where runs lie in it: trainings, the demo's, and those of pipelines."""


@dataclass(frozen=True)
class SyncedRun:
    """A run that was looked at.

    Attributes:
        run: its folder.
        uri: where it is tracked, without a password.
        run_id: of the MLflow run; None: nothing has arrived.
        bytes: of its events that were sent now; 0: all had been sent before.
        problem: why not all has arrived; None: it has.
    """

    run: Path
    uri: str
    run_id: str | None
    bytes: int
    problem: str | None


@dataclass(frozen=True)
class SyncResult:
    """All runs that were looked at.

    Attributes:
        runs: in the order of their names.
    """

    runs: tuple[SyncedRun, ...]

    @property
    def problem(self) -> LensmithError | None:
        """What to tell where not all has arrived."""
        missing = [sent for sent in self.runs if sent.problem]
        if not missing:
            return None
        return RegistryError(
            f"All of {len(self.runs)} run{'s' * (len(self.runs) > 1)} was expected to arrive in MLflow.",
            f"Of {', '.join(str(sent.run) for sent in missing[:5])}{' and others' * (len(missing) > 5)} not all did: "
            f"{(missing[0].problem or '').rstrip('.')}.",
            "It is kept in the run folder; run the same again when that is mended.",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"runs": [{**vars(sent), "run": str(sent.run)} for sent in self.runs]}


def sync(runs: Iterable[Path] = ()) -> SyncResult:
    """Send what runs have left.

    Args:
        runs: their folders, also of runs that were not tracked; without any, all in runs/ of which something is left.

    Raises:
        RunError: a folder that is none of a run, or that is being trained.
        RegistryError: no tracking URI.
        MissingPackageError: MLflow is not installed.
    """
    if not installed():
        raise MissingPackageError.of(ModuleNotFoundError(name="mlflow"))
    named = list(runs)
    for run in named:
        _require(run)
    chosen = named or [run for run in _tracked() if _left(run)]
    return SyncResult(tuple(_send(run) for run in track(chosen, "sending runs")))


def _require(run: Path) -> None:
    if not (run / DESCRIPTION).is_file():
        raise RunError(
            f"A run folder that `lensmith train` made was expected at {run}.",
            f"It holds no {DESCRIPTION}." if run.exists() else "There is none.",
            "Name run folders, or none for all in runs/.",
        )
    if RunReader(run).trained_now():
        raise RunError(
            f"A run that is not being trained was expected at {run}.",
            "A process is training it, and another beside it sends what happens.",
            "Wait for its end.",
        )


def _tracked() -> list[Path]:
    return sorted({file.parent for where in WHERE for file in RUNS.glob(f"{where}/{NAME}")})


def _left(run: Path) -> bool:
    state = TrackingState.read(run)
    return state is not None and not state.complete(run) and not RunReader(run).trained_now()


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
