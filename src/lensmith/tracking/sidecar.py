"""In the training process: the side process that sends what it tells is started, told of the end, and waited for.

Nothing here imports MLflow, and nothing that goes wrong here stops a training: what was not sent stays in the run
folder, and is sent later.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lensmith.config.values import without_password
from lensmith.tracking.address import AUTO, installed, uri_of
from lensmith.tracking.state import TrackingState

WAIT_S, WAIT_STOPPED_S = 10.0, 2.0
"""Seconds that the end of a training waits for what is under way; and one that was stopped."""


@dataclass(frozen=True)
class TrackingStatus:
    """Where a run is tracked.

    Attributes:
        uri: MLflow's tracking URI, without a password.
        run_id: of the MLflow run; None: nothing has arrived yet.
        complete: all that the run has told has arrived.
        problem: why not; None where it is still being sent.
    """

    uri: str
    run_id: str | None
    complete: bool
    problem: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


class TrackingSidecar:
    """The side process of a training; use as a context, at whose end the training is over."""

    def __init__(self) -> None:
        self._run: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._waits_s = WAIT_S
        self._told_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._waits_s = WAIT_S if kind is None else WAIT_STOPPED_S
        self._told_at = time.time()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._wait()

    def begin(self, run: Path, setting: str) -> None:
        """Note where a run is tracked, and start sending it.

        Args:
            run: its folder, with its description.
            setting: `TrainSettings.tracking`.

        Raises:
            RegistryError: no tracking URI can be made of the setting.
        """
        state = TrackingState.read(run)
        if setting == AUTO and not installed():
            if state is None:
                print(
                    "not tracked: MLflow is not installed (pip install 'lensmith[track]')", file=sys.stderr, flush=True
                )
            return
        uri = uri_of(setting, state)
        if uri is None:
            return
        with suppress(OSError):
            if state is None or state.uri != without_password(uri):
                TrackingState.new(without_password(uri), run).write(run)
            self._run = run
            command = [sys.executable, "-m", "lensmith.tracking.uploader", str(run)]
            # In a session of its own: Ctrl-C is for the training, whose last events are still to be sent.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{uri}\n".encode())
            self._process.stdin.flush()

    def tracked(self) -> TrackingStatus | None:
        """How far it has got; None: the run is not tracked."""
        state = None if self._run is None else TrackingState.read(self._run)
        if self._run is None or state is None:
            return None
        return TrackingStatus(state.uri, state.run_id, state.complete(self._run), state.problem)

    def _wait(self) -> None:
        """Until all has arrived, or an attempt has failed since the end, or it takes too long."""
        assert self._run is not None
        assert self._process is not None
        deadline = self._told_at + self._waits_s
        while time.time() < deadline and self._process.poll() is None:
            state = TrackingState.read(self._run)
            if state is None or (state.tried_at > self._told_at and (state.problem or state.complete(self._run))):
                break  # an attempt that began before the end may leave something to the next
            time.sleep(0.05)
