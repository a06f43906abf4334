"""Metric values that several processes share: in memory, mapped to files that the process that is scraped reads.

The files have the format of prometheus_client's multiprocess mode. Its own writer maps files without reserving their
space, so that a full /dev/shm ends every process by SIGBUS, and knows its files by an open descriptor, so that whatever
cleans them away ends the counting for good. Here space is reserved before it is mapped, values stay in memory where
there is none, and `store_values` puts missing files back.
"""

import mmap
import os
import struct
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import mmap_key
from prometheus_client.values import MutexValue

from lensmith.core.files import atomic_path, private_directory
from lensmith.serving.metrics import SHARED_FOLDER

INITIAL_BYTES = 1 << 16
"""Size of a new file; it doubles when it is full."""
HEADER_BYTES = 8
"""The number of bytes in use (int32), and padding."""

_PAIR, _LENGTH = struct.Struct("dd"), struct.Struct("i")

_lock = Lock()
"""Guards all values of this process: some are changed by threads beside the event loop."""
_files: dict[Path, "ValuesFile"] = {}
"""Path → the file's values; one for each kind of metric of this process."""


def use_value_class() -> None:
    """Have metrics that are made from now on share their values if the environment names a folder for them.

    prometheus_client decides this when it is imported, by a variable that may have been another program's.
    """
    values.ValueClass = SharedValue if os.environ.get(SHARED_FOLDER) else MutexValue


def values_file(kind: str, owner: str) -> "ValuesFile":
    """The values of a kind of metric (`counter`, `gauge_livesum`, …) of an owner: a process's ID, or `dead`."""
    path = Path(os.environ[SHARED_FOLDER]) / f"{kind}_{owner}.db"
    if path not in _files:
        _files[path] = ValuesFile(path)
    return _files[path]


def store_values() -> None:
    """Put back the files of this process that are missing, or for which there was no room.

    Raises:
        OSError: there is no room or right to write them; the values stay in memory.
    """
    with _lock:
        for each in _files.values():
            each.store()


class ValuesFile:
    """Values by their keys, mapped to a file; in memory alone while the file cannot be written.

    Not thread-safe: callers hold a lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map = mmap.mmap(-1, INITIAL_BYTES)
        self._used = HEADER_BYTES
        self._map[:4] = _LENGTH.pack(self._used)
        self._positions: dict[str, int] = {}
        self._file: tuple[int, int] | None = None
        self._try_to_store()

    def position(self, key: str) -> int:
        """The offset of a key's value in bytes; a new key begins with 0."""
        if key not in self._positions:
            encoded = key.encode()
            encoded += b" " * (8 - (len(encoded) + 4) % 8)
            entry = _LENGTH.pack(len(key.encode())) + encoded + _PAIR.pack(0.0, 0.0)
            while self._used + len(entry) > len(self._map):
                self._grow()
            self._map[self._used : self._used + len(entry)] = entry
            self._used += len(entry)
            self._map[:4] = _LENGTH.pack(self._used)
            self._positions[key] = self._used - _PAIR.size
        return self._positions[key]

    def get(self, position: int) -> float:
        """The value at an offset."""
        return float(_PAIR.unpack_from(self._map, position)[0])

    def set(self, position: int, value: float, timestamp: float = 0.0) -> None:
        """Change the value at an offset; `timestamp` in seconds since 1970."""
        # Not pack_into, which clears the bytes first: another process may read them at any moment.
        self._map[position : position + _PAIR.size] = _PAIR.pack(value, timestamp)

    def add(self, key: str, value: float) -> None:
        """Add to a key's value."""
        position = self.position(key)
        self.set(position, self.get(position) + value)

    def store(self) -> None:
        """Write the file unless it is there as this process made it.

        Raises:
            OSError: it cannot be written; the values stay in memory.
        """
        if self._file is None or self._found() != (self._file, len(self._map)):
            self._move(len(self._map))

    def _found(self) -> tuple[tuple[int, int], int] | None:
        """Identity and size of the file of that name; None where there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino), found.st_size

    def _grow(self) -> None:
        try:
            self._move(2 * len(self._map))
        except OSError:
            larger = mmap.mmap(-1, 2 * len(self._map))
            larger[: self._used] = self._map[: self._used]
            self._map, self._file = larger, None

    def _try_to_store(self) -> None:
        try:
            self.store()
        except OSError:
            self._file = None

    def _move(self, size: int) -> None:
        """Copy the values to a new file of `size` bytes, and map it."""
        private_directory(self._path.parent)
        with atomic_path(self._path, sync=False) as partial:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                content = self._map[: self._used].ljust(size, b"\0")
                # Written, as mapped pages that the system has no room for end the process.
                while content:
                    content = content[file.write(content) :]
                mapped, found = mmap.mmap(file.fileno(), size), os.fstat(file.fileno())
        self._map, self._file = mapped, (found.st_dev, found.st_ino)


class SharedValue:
    """One value of a metric, in the file of its kind. For `prometheus_client.values.ValueClass`."""

    _multiprocess = True

    def __init__(
        self, typ: str, metric_name: str, name: str, labelnames: Any, labelvalues: Any, help_text: str,
        multiprocess_mode: str = "", **_: Any,
    ) -> None:  # fmt: skip
        kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        with _lock:
            self._file = values_file(kind, str(os.getpid()))
            self._position = self._file.position(mmap_key(metric_name, name, labelnames, labelvalues, help_text))

    def inc(self, amount: float) -> None:
        """See prometheus_client."""
        with _lock:
            self._file.set(self._position, self._file.get(self._position) + amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """See prometheus_client."""
        with _lock:
            self._file.set(self._position, value, timestamp or 0.0)

    def get(self) -> float:
        """See prometheus_client."""
        with _lock:
            return self._file.get(self._position)

    def set_exemplar(self, exemplar: Any) -> None:
        """See prometheus_client, which has no exemplars for several processes."""

    def get_exemplar(self) -> None:
        """See prometheus_client."""
