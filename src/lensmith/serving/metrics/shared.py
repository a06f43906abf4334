"""Metrics of several processes: read from the files of all, with the counts of dead processes merged into one file.

Every process has files of its own (see `lensmith.serving.metrics.shared_values`), and the counts of dead ones must not
be lost. As processes come and go with each model swap, the counts of the dead are merged into one file.
"""

import json
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from lensmith.core.files import private_directory
from lensmith.core.locks import locked
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.metrics.shared_values import HEADER_BYTES, store_values, values_file

logger = logging.getLogger(__name__)

KINDS = ("counter", "histogram")
"""Metrics whose values outlive their process; gauges describe live processes only."""


class SharedFiles:
    """The metrics of all processes, for Prometheus; files that cannot be read are left out, and reported once.

    Attributes:
        folder: folder of the files.
        is_complete: whether this process's values were in their files at the last `store`, or could be put back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_complete = True
        self._reported: set[Path] = set()

    def store(self) -> None:
        """Put this process's files back where others removed them; never raises."""
        try:
            store_values()
        except OSError as error:
            if self.is_complete:
                logger.error("metrics are counted in memory only, until their files can be written: %s", error)
            self.is_complete = False
        else:
            if not self.is_complete:
                logger.info("the files of metrics are complete again")
            self.is_complete = True

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's collectors."""
        with locked_files(self.folder):
            files = sorted(self.folder.glob("*.db"))
            broken = {each for each in files if not _is_readable(each)}
            metrics = list(MultiProcessCollector.merge([str(each) for each in files if each not in broken]))
        yield from metrics
        for each in broken - self._reported:
            logger.error("the metrics in %s cannot be read and are left out", each)
        self._reported = broken
        what = "Whether the metrics of all processes could be stored and read: 1 or 0."
        yield GaugeMetricFamily("lensmith_metrics_complete", what, value=int(self.is_complete and not broken))


def merge_counts_of_dead(pid: int) -> None:
    """Add the counts of a dead process to those of all dead processes, and remove its own files; never raises.

    Args:
        pid: ID of a process that has ended.
    """
    folder = Path(os.environ[SHARED_FOLDER])
    with locked_files(folder):
        for kind in KINDS:
            own = folder / f"{kind}_{pid}.db"
            if own.exists() and _is_readable(own):
                merged = values_file(kind, "dead")
                for key, value in _values(own):
                    merged.add(key, value)
                merged.flush()
        for file in folder.glob(f"*_{pid}.db"):
            with suppress(OSError):
                file.unlink()


@contextmanager
def locked_files(folder: Path) -> Iterator[None]:
    """Lock the files, to read or merge them with nothing counted twice or missing.

    Without room for the lock's file they are read without: a scrape may then miss counts that are being merged.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            private_directory(folder)
            stack.enter_context(locked(folder / "lock"))
        yield


def _values(file: Path) -> Iterable[tuple[str, float]]:
    return ((key, value) for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)))


def _is_readable(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            (used,) = struct.unpack("i", opened.read(4))
        return HEADER_BYTES <= used <= file.stat().st_size and all(
            len(json.loads(key)) == 4 for key, _ in _values(file)
        )
    except Exception:  # struct.error, RuntimeError, OSError or ValueError, by what is wrong with it
        return False
