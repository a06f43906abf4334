"""Metrics of several processes, in the files of prometheus_client's multiprocess mode.

Every process has files of its own, and the counts of dead ones must not be lost. As processes come and go with each
model swap, the counts of the dead are merged into one file.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from lensmith.serving.metrics import SHARED_FOLDER

KINDS = ("counter", "histogram")
"""Metrics whose values outlive their process; gauges describe live processes only."""


def merge_counts_of_dead(pid: int) -> None:
    """Add the counts of a dead process to the file of all dead processes, and remove its own.

    Args:
        pid: ID of a process that has ended.
    """
    folder = Path(os.environ[SHARED_FOLDER])
    with locked_files(folder, fcntl.LOCK_EX):
        mark_process_dead(pid, str(folder))
        for kind in KINDS:
            own = folder / f"{kind}_{pid}.db"
            if not own.exists():
                continue
            merged = MmapedDict(str(folder / f"{kind}_dead.db"))
            for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(own)):
                merged.write_value(key, merged.read_value(key)[0] + value, timestamp)
            merged.close()
            own.unlink()


@contextmanager
def locked_files(folder: Path, lock: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Lock the files to read them with nothing counted twice or missing; `LOCK_EX`: to merge and remove some."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, lock)
        yield
