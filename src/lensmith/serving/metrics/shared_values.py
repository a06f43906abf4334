"""Metric values that several processes share: in memory, and written to files that the process that is scraped reads.

The files have the format of prometheus_client's multiprocess mode. Its own writer maps them into memory, where a full
/dev/shm or a file that others cut short ends the process by SIGBUS, and knows them by an open descriptor only, so that
whatever cleans them away ends the counting for good. Here a file is a copy: what changed is written to it after each
request, an error of writing costs nothing but freshness, and `store_values` heals the files every second.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from prometheus_client import values
from prometheus_client.mmap_dict import mmap_key
from prometheus_client.values import MutexValue

from lensmith.core.files import atomic_path, private_directory
from lensmith.serving.metrics import SHARED_FOLDER

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
        with suppress(OSError):  # `store_values` tries again, and reports it
            _files[path].store()
    return _files[path]


def flush_values() -> None:
    """Write what has changed to the files, for the process that is scraped; never raises, as `store_values` follows."""
    with _lock:
        for each in _files.values():
            each.flush()


def store_values() -> None:
    """Write all values of this process again, and put back files that are missing or for which there was no room.

    Raises:
        OSError: there is no room or right to write them; the values stay in memory.
    """
    with _lock:
        for each in _files.values():
            each.store()


class ValuesFile:
    """Values by their keys in memory, and a file that gets what has changed; a file that fails costs no value.

    Not thread-safe: callers hold a lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image = bytearray(HEADER_BYTES)  # what the file is to hold
        self._set_used()
        self._positions: dict[str, int] = {}
        self._file: BinaryIO | None = None
        self._written = 0  # bytes of the image that the file has; those of `_changed` in an older state
        self._changed: tuple[int, int] | None = None

    def position(self, key: str) -> int:
        """The offset of a key's value in bytes; a new key begins with 0."""
        if key not in self._positions:
            encoded = key.encode()
            padding = b" " * (8 - (len(encoded) + 4) % 8)
            self._image += _LENGTH.pack(len(encoded)) + encoded + padding + _PAIR.pack(0.0, 0.0)
            self._set_used()
            self._positions[key] = len(self._image) - _PAIR.size
        return self._positions[key]

    def get(self, position: int) -> float:
        """The value at an offset."""
        return float(_PAIR.unpack_from(self._image, position)[0])

    def set(self, position: int, value: float, timestamp: float = 0.0) -> None:
        """Change the value at an offset; `timestamp` in seconds since 1970."""
        _PAIR.pack_into(self._image, position, value, timestamp)
        low, high = self._changed or (position, position)
        self._changed = min(low, position), max(high, position + _PAIR.size)

    def add(self, key: str, value: float) -> None:
        """Add to a key's value."""
        position = self.position(key)
        self.set(position, self.get(position) + value)

    def flush(self) -> None:
        """Write what has changed; a file that cannot be written is given up until `store`."""
        file, changed, end = self._file, self._changed, len(self._image)
        if file is None or (changed is None and self._written == end):
            return
        low, high = changed or (end, end)
        try:
            if self._written < end:
                # New entries before the number of bytes in use, which makes readers look at them.
                _write(file, self._image[min(low, self._written) :], min(low, self._written))
                _write(file, self._image[:HEADER_BYTES], 0)
            else:
                _write(file, self._image[low:high], low)
        except OSError:
            self._close()
        else:
            self._written, self._changed = end, None

    def store(self) -> None:
        """Write all values again, to another file where this one is gone or was changed by others.

        Raises:
            OSError: it cannot be written; the values stay in memory.
        """
        self.flush()
        if self._file is None or not self._is_intact(self._file):
            self._replace()
        else:
            _write(self._file, bytes(self._image), 0)

    def _is_intact(self, file: BinaryIO) -> bool:
        """Whether the file of that name is the one that is open, of the size that was written."""
        try:
            found, opened = self._path.stat(), os.fstat(file.fileno())
        except OSError:
            return False
        return (found.st_dev, found.st_ino, found.st_size) == (opened.st_dev, opened.st_ino, self._written)

    def _replace(self) -> None:
        self._close()
        private_directory(self._path.parent)
        with atomic_path(self._path, sync=False) as partial:
            file = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b", buffering=0)
            try:
                _write(file, bytes(self._image), 0)
            except OSError:
                file.close()
                raise
        self._file, self._written, self._changed = file, len(self._image), None

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file, self._written = None, 0

    def _set_used(self) -> None:
        self._image[:4] = _LENGTH.pack(len(self._image))


def _write(file: BinaryIO, content: bytes | bytearray, offset: int) -> None:
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        content, offset = content[written:], offset + written


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
