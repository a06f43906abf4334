"""tracking.json in a run folder: where in MLflow the run is, and how much of it has got there."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lensmith.tracking.run_reader import RunReader

NAME = "tracking.json"
PARTIAL = f"{NAME}.partial"
LOCK = ".lock-tracking"
FILES = (NAME, PARTIAL, LOCK)
"""What tracking leaves in a run folder."""


@dataclass(frozen=True)
class TrackingState:
    """What stands in it.

    Attributes:
        uri: MLflow's tracking URI, without a password.
        key: a tag of the MLflow run, by which it is found where its id was not written down in time.
        begun: Unix time of what tells none itself.
        run_id: MLflow's; None: nothing has been sent.
        described: settings and data have been sent.
        offset: bytes of events.jsonl that have been sent.
        epoch: the last one sent; one that is run again after a kill is not sent again.
        status: the MLflow run's.
        tried_at: Unix time of the last attempt to send.
        problem: why that attempt failed; None: it did not.
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
        """Of a run of which nothing has been sent to `uri`."""
        return cls(uri, uuid.uuid4().hex, RunReader(run).begun_at())

    @classmethod
    def read(cls, run: Path) -> TrackingState | None:
        """What stands in a run folder; None where nothing does, or nothing whole."""
        try:
            return cls(**json.loads((run / NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, run: Path, **changes: Any) -> TrackingState:
        """The state with these changes, which is in the run folder when this returns: whole, or not at all.

        Raises:
            OSError: the folder is gone, or full.
        """
        changed = replace(self, **changes)
        with (run / PARTIAL).open("w", encoding="utf-8") as file:
            json.dump(asdict(changed), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        (run / PARTIAL).replace(run / NAME)
        return changed

    def failed(self, run: Path, problem: str) -> TrackingState:
        """The same after an attempt that failed."""
        return self.write(run, tried_at=time.time(), problem=problem)

    def complete(self, run: Path) -> bool:
        """Whether all that the run has told so far has been sent, its end too where nobody is left to tell it."""
        reader = RunReader(run)
        if self.problem is not None or reader.waiting(self.offset, begun=self.described):
            return False
        return self.status != "RUNNING" or reader.trained_now()


@contextmanager
def sending_lock(run: Path, timeout_s: float) -> Iterator[bool]:
    """Be the one that sends a run; false where another process still is after `timeout_s`.

    Raises:
        FileNotFoundError: the folder is gone.
    """
    from filelock import FileLock, Timeout

    run.stat()  # the lock would make the folder
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
