"""Measurements of several processes, in the files of prometheus_client's multiprocess mode.

Every process has files of its own, and those of dead ones have to go on counting. As processes come and go with each
change of model, what the dead have counted is put together in one file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from lensmith.serving.metrics import SHARED_FOLDER

KINDS = ("counter", "histogram")
"""Whose values of dead processes count on; gauges tell of the living."""


class Restarts:
    """How many processes died and were replaced."""

    def __init__(self) -> None:
        self._counter = Counter(
            "lensmith_worker_restarts", "Processes that died and were replaced.", registry=CollectorRegistry()
        )

    def inc(self) -> None:
        """One more."""
        self._counter.inc()


def merge_counts_of_dead(pid: int) -> None:
    """Add what a dead process has counted to the file of the dead, and remove its own.

    Args:
        pid: of a process that writes no more.
    """
    folder = Path(os.environ[SHARED_FOLDER])
    with locked_files(folder, fcntl.LOCK_EX):
        mark_process_dead(pid, str(folder))
        for kind in KINDS:
            own = folder / f"{kind}_{pid}.db"
            if not own.exists():
                continue
            kept = MmapedDict(str(folder / f"{kind}_dead.db"))
            for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(own)):
                kept.write_value(key, kept.read_value(key)[0] + value, timestamp)
            kept.close()
            own.unlink()


@contextmanager
def locked_files(folder: Path, lock: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Read the files, with nothing counted twice or missing; `LOCK_EX`: change which there are."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, lock)
        yield
