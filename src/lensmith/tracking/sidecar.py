"""Tracking sidecar, seen from the training: starts the uploader process, signals the end, and waits for it.

Nothing here imports MLflow, and no error here stops a training: events that were not sent stay in the run folder, and
are sent later.
"""

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lensmith.config.values import without_password
from lensmith.core.result import Result
from lensmith.tracking.address import AUTO, installed, uri_of
from lensmith.tracking.state import TrackingState

WAIT_S, WAIT_STOPPED_S = 10.0, 2.0
"""Longest wait for the uploader at the end of a training, and after an interruption, in seconds."""


@dataclass(frozen=True)
class TrackingStatus(Result):
    """How far a run has been sent.

    Attributes:
        uri: MLflow's tracking URI, without a password.
        run_id: id of the MLflow run; None before anything has arrived.
        complete: True once all events have arrived.
        problem: reason why they have not; None while they are being sent.
    """

    uri: str
    run_id: str | None
    complete: bool
    problem: str | None


class TrackingSidecar:
    """The uploader process of a training; use as a context, at whose end the training is over."""

    def __init__(self) -> None:
        self._run: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        assert self._run is not None
        assert self._process.stdin is not None
        ended_at = time.time()
        with suppress(OSError):
            self._process.stdin.close()
        # Wait until all has arrived, an attempt since the end has failed, or the time is up.
        deadline = ended_at + (WAIT_S if kind is None else WAIT_STOPPED_S)
        while time.time() < deadline and self._process.poll() is None:
            state = TrackingState.read(self._run)
            if state is None or (state.tried_at > ended_at and (state.problem or state.is_complete(self._run))):
                break  # an attempt that began before the end may have missed the last events
            time.sleep(0.05)

    def begin(self, run: Path, setting: str) -> None:
        """Write the tracking state of a run that has its run.json, and start the uploader as `tracking` sets it.

        Raises:
            RegistryError: the setting is no tracking URI.
        """
        state = TrackingState.read(run)
        if setting == AUTO and not installed():
            if state is None:
                advice = "not tracked: MLflow is not installed (pip install 'lensmith[track]')"
                print(advice, file=sys.stderr, flush=True)
            return
        uri = uri_of(setting, state)
        if uri is None:
            return
        with suppress(OSError):
            if state is None or state.uri != without_password(uri):
                TrackingState.new(without_password(uri), run).write(run)
            self._run = run
            command = [sys.executable, "-m", "lensmith.tracking.uploader", str(run)]
            # In a session of its own, since Ctrl-C must not end it before the training's last events are sent.
            null = subprocess.DEVNULL
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
            )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{uri}\n".encode())
            self._process.stdin.flush()

    def tracked(self) -> TrackingStatus | None:
        """How far the run has been sent; None for a run that is not tracked."""
        if self._run is None or (state := TrackingState.read(self._run)) is None:
            return None
        return TrackingStatus(state.uri, state.run_id, state.is_complete(self._run), state.problem)
