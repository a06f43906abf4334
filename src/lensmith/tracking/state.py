"""Tracking state of a run, tracking.json in its folder: its MLflow run, and how much of it has been sent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write
from lensmith.core.locks import LockTimeoutError, locked
from lensmith.tracking.run_reader import begun_at, has_unsent, is_training

NAME = "tracking.json"
LOCK = ".lock-tracking"
FILES = (NAME, LOCK)
"""Files of tracking in a run folder."""


@dataclass(frozen=True)
class TrackingState:
    """The content of tracking.json.

    Attributes:
        uri: MLflow's tracking URI, without a password.
        key: tag of the MLflow run, by which it is found if its id was not written in time.
        begun: Unix time in seconds for events without a time.
        run_id: id of the MLflow run; None before it is created.
        described: True once settings and data have been sent.
        offset: number of bytes of events.jsonl that have been sent.
        epoch: last epoch that was sent; one that is repeated after a kill is not sent again.
        status: status of the MLflow run.
        tried_at: Unix time in seconds of the last attempt to send.
        problem: reason why that attempt failed; None if it did not.
    """

    uri: str
    key: str
    begun: float
    run_id: str | None = None
    described: bool = False
    offset: int = 0
    epoch: int = 0
    status: str | None = None
    tried_at: float = 0.0
    problem: str | None = None

    @classmethod
    def new(cls, uri: str, run: Path) -> TrackingState:
        """The state of a run of which nothing has been sent to `uri`."""
        return cls(uri, uuid.uuid4().hex, begun_at(run))

    @classmethod
    def read(cls, run: Path) -> TrackingState | None:
        """The state in a run folder; None where there is none, or it is damaged."""
        try:
            return cls(**json.loads((run / NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, run: Path, **changes: Any) -> TrackingState:
        """Write the state with some changes atomically, and return it.

        Raises:
            OSError: the folder is missing, or the disk full.
        """
        changed = replace(self, **changes)
        atomic_write(run / NAME, json.dumps(asdict(changed), indent=1))
        return changed

    def is_complete(self, run: Path) -> bool:
        """Whether all events so far have been sent, and also the end of a run whose process is gone."""
        if self.problem is not None or has_unsent(run, self.offset, begun=self.described):
            return False
        return self.status != "RUNNING" or is_training(run)


def unsent_state(run: Path) -> TrackingState | None:
    """The state of a run of which something is still to be sent, and which is not being trained; None for others."""
    state = TrackingState.read(run)
    return state if state and not state.is_complete(run) and not is_training(run) else None


@contextmanager
def sending_lock(run: Path, timeout_s: float) -> Iterator[bool]:
    """Lock a run folder for sending; False where another process holds the lock for `timeout_s`.

    Raises:
        FileNotFoundError: the folder is missing.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(run / LOCK, timeout_s))
        except LockTimeoutError:
            yield False
        else:
            yield True
