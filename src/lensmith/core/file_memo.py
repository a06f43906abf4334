"""Results memoized on disk for each file, for as long as its size, times and inode stay the same.

Hashes of contents, and whether a picture can be decoded, cost a read of every file. So they are stored by path, in one
SQLite database that all sets of images, runs and processes share: a folder with two new files costs two reads.

A database that cannot be written to, or that is damaged, costs time and nothing else.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

from lensmith.core.files import stat_stamp
from lensmith.core.machine import allowed_cores, cache_dir
from lensmith.core.threads import map_in_order

NAME = "files.sqlite"

LARGEST_BYTES = 2 * 10**9
"""Size of the database, about ten million files, above which it begins anew: most of them are long gone."""

BATCH = 512
"""Files that are looked up and stored together; a process that is killed loses the results of one batch."""

Values = tuple[bytes | None, ...]
"""One result for each kind that was asked for; None is not stored, such as that of a file that cannot be read now."""

_KEY_BYTES, _STAMP_BYTES = 16, 8
_WAIT_S = 5.0
"""Seconds to wait for another process that writes, before a batch is left unstored."""


def memoized_by_file(
    kinds: Sequence[str],
    paths: Iterable[Path],
    compute: Callable[[Path], Values],
    file_of: Callable[[Path], Path] = lambda path: path,
) -> Iterator[Values]:
    """Results for each path in order, computed on all cores allowed where they are not stored yet.

    Args:
        kinds: name of each result, with everything but the file that it depends on.
        paths: the paths.
        compute: function from a path to its results, one for each kind; called in several threads.
        file_of: function from a path to the file whose stamp its results depend on.
    """
    remaining, here = iter(paths), os.fsencode(Path.cwd())
    with closing(_Database()) as database:
        while batch := list(islice(remaining, BATCH)):
            stamps = [_stamp(file_of(path)) for path in batch]
            names = [os.path.join(here, os.fsencode(path)) for path in batch]  # noqa: PTH118 - a tenth of `absolute`
            keys = [[_key(kind, name) for kind in kinds] for name in names]
            stored = database.read([key for row in keys for key in row])
            found = [_recalled(stored, row, stamp) for row, stamp in zip(keys, stamps, strict=True)]
            missing = [place for place, values in enumerate(found) if values is None]
            made = dict(zip(missing, _computed([batch[place] for place in missing], compute), strict=True))
            # A file that changed, or came into being, while it was read: its results are not those of the stamp.
            same = [place for place in missing if stamps[place] and _stamp(file_of(batch[place])) == stamps[place]]
            pairs = [pair for place in same for pair in _pairs(keys[place], stamps[place], made[place])]
            database.write(pairs)
            for place, values in enumerate(found):
                yield made[place] if values is None else values


def clear_file_memo() -> int:
    """Remove all stored results; returns 1 if there were any, else 0."""
    existed = (cache_dir() / NAME).exists()
    _remove(cache_dir() / NAME)
    return int(existed)


class _Database:
    """The stored results by key; every failure of SQLite means that nothing is stored."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        for _ in range(2):
            with self._failing_softly(cache_dir() / NAME):
                self._open(cache_dir() / NAME)
                break

    def _open(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > LARGEST_BYTES:
            _remove(file)
        self._connection = sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")  # what a power cut takes is computed again
        self._connection.execute("CREATE TABLE IF NOT EXISTS memo (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The stored results of some keys, each after its stamp."""
        found: dict[bytes, bytes] = {}
        with self._failing_softly(cache_dir() / NAME):
            for start in range(0, len(keys) if self._connection else 0, BATCH):
                some = keys[start : start + BATCH]
                query = f"SELECT key, value FROM memo WHERE key IN ({','.join('?' * len(some))})"
                found.update(self._connection.execute(query, some))  # type: ignore[union-attr]
        return found

    def write(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Store results by key."""
        if not pairs or self._connection is None:
            return
        with self._failing_softly(cache_dir() / NAME):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO memo VALUES (?, ?)", pairs)
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the database; what was not committed is lost."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    @contextlib.contextmanager
    def _failing_softly(self, file: Path) -> Iterator[None]:
        """Go on without the database where it fails; a damaged one is removed."""
        try:
            yield
        except (OSError, sqlite3.OperationalError):  # no right, room or lock to write, or another process writes long
            self.close()
        except sqlite3.DatabaseError:
            self.close()
            _remove(file)


def _key(kind: str, name: bytes) -> bytes:
    return hashlib.sha256(f"{kind}\0".encode() + name).digest()[:_KEY_BYTES]


def _stamp(file: Path) -> bytes:
    """A short hash of the file's stamp; empty if there is no such file."""
    stamp = stat_stamp(file)
    return b"" if stamp is None else hashlib.sha256(stamp.encode()).digest()[:_STAMP_BYTES]


def _recalled(stored: dict[bytes, bytes], keys: Sequence[bytes], stamp: bytes) -> Values | None:
    """The results of one path; None unless all of them are stored under its stamp."""
    rows = [stored.get(key, b"") for key in keys]
    if not stamp or not all(row[:_STAMP_BYTES] == stamp for row in rows):
        return None
    return tuple(row[_STAMP_BYTES:] for row in rows)


def _pairs(keys: Sequence[bytes], stamp: bytes, values: Values) -> Iterator[tuple[bytes, bytes]]:
    """What is stored of one path, by key."""
    for key, value in zip(keys, values, strict=True):
        if value is not None:
            yield key, stamp + value


def _computed(paths: Sequence[Path], compute: Callable[[Path], Values]) -> Iterator[Values]:
    cores = allowed_cores()
    if paths:
        yield from map_in_order(compute, paths, cores, 8 * cores, "files")


def _remove(file: Path) -> None:
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        with contextlib.suppress(OSError):
            file.with_name(name).unlink(missing_ok=True)
