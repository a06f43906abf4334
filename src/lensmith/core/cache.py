"""What is computed once and kept on disk: arrays by key, whole or continued, within a budget.

An entry is a flat array in blocks. Each block's CRC-32 is noted once the block is written, so one that was killed
half-way, or lost to a power cut, is computed again and the others are not. One process at a time computes an entry;
others that want it wait. Least recently used entries make room for new ones.

    CACHE/kept/KIND/DIGEST/entry.json   what it is: key, type, lengths, in words
                           data         the array
                           blocks       uint64 a block: 0, or 2^32 + CRC-32
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.core.machine import cache_dir
from lensmith.core.memoized import forget

Make = Callable[[Sequence[int]], Iterator[npt.NDArray[Any]]]
"""Numbers of the blocks that are missing → these blocks, in that order."""

DESCRIPTION, DATA, BLOCKS = "entry.json", "data", "blocks"
_THERE = 1 << 32
_FREE_SHARE = 0.5
"""The most that is taken of the disk's free space, whatever the budget."""


class NotKeptError(Exception):
    """There is no room, or no right to write; what was to be kept must be had in another way."""


@dataclass(frozen=True)
class Entry:
    """One array on disk.

    Attributes:
        kind: `features`, `pixels`.
        path: its folder.
        title: what it is, in words.
        bytes: on disk.
        used: when it was last used, seconds since 1970.
        whole: False where the process that computed it was stopped; the next to want it goes on.
    """

    kind: str
    path: Path
    title: str
    bytes: int
    used: float
    whole: bool

    @property
    def age_s(self) -> float:
        """Seconds since it was last used."""
        return max(0.0, time.time() - self.used)


class Store:
    """The arrays kept in one folder.

    Args:
        budget_bytes: of all entries together.
        root: the folder; that of this user by default.
    """

    def __init__(self, budget_bytes: int, root: Path | None = None) -> None:
        self.budget_bytes, self.root = budget_bytes, root or cache_dir() / "kept"

    def obtain(
        self, kind: str, key: Mapping[str, Any], dtype: str, lengths: Sequence[int], make: Make, title: str,
        waiting: Callable[[], None] = lambda: None,
    ) -> npt.NDArray[Any]:  # fmt: skip
        """The array of this key, computed as far as it is not there.

        Args:
            kind: of entry.
            key: plain values that say all it depends on.
            dtype: of its elements.
            lengths: elements in each block.
            make: computes blocks.
            title: for people.
            waiting: called now and then while another process computes it; what it raises ends the wait.

        Returns:
            Read-only, mapped into memory, flat. It stays valid when the entry is removed.

        Raises:
            NotKeptError: there is no room for it, or no right to write.
        """
        said = {"kind": kind, "key": dict(key), "dtype": dtype, "lengths": _short(lengths)}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
        folder = self.root / kind / digest
        array = _Array(folder, np.dtype(dtype), lengths)
        if (found := array.whole()) is not None:
            return found
        try:
            with self._locked(digest, title, waiting):
                if not array.sound:
                    self._make_room(array.bytes)
                    array.create({**said, "title": title})
                array.fill(make)
                found = array.whole()
        except OSError as error:
            raise NotKeptError(f"{error.strerror or error} ({folder})") from error
        if found is None:
            raise NotKeptError(f"what was written is not what can be read ({folder})")
        return found

    def entries(self) -> list[Entry]:
        """All of them, the least recently used first."""
        found = []
        for description in self.root.glob(f"*/*/{DESCRIPTION}"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # removed by another process at this moment
                folder, said = description.parent, json.loads(description.read_text(encoding="utf-8"))
                size = sum((folder / name).stat().st_size for name in (DATA, BLOCKS))
                whole = bool(np.fromfile(folder / BLOCKS, dtype=np.uint64).all())
                used = description.stat().st_mtime
                found.append(Entry(description.parent.parent.name, folder, said["title"], size, used, whole))
        return sorted(found, key=lambda entry: entry.used)

    def remove(self, entry: Entry) -> bool:
        """Remove an entry; False where another process is computing it."""
        from filelock import Timeout

        try:
            with self._lock(entry.path.name).acquire(timeout=0):
                trash = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.root))
                entry.path.rename(trash / entry.path.name)  # so that a half of it is never found
                shutil.rmtree(trash, ignore_errors=True)
        except (Timeout, OSError):
            return False
        return True

    def _make_room(self, needed: int) -> None:
        """Remove what was not used for the longest time until `needed` bytes fit.

        Raises:
            NotKeptError: they never will.
        """
        if needed > self.budget_bytes:
            raise NotKeptError(f"{needed / 1e9:.1f} GB are more than the budget of {self.budget_bytes / 1e9:.1f} GB")
        self.root.mkdir(parents=True, exist_ok=True)
        entries = self.entries()
        held = sum(entry.bytes for entry in entries)
        free = shutil.disk_usage(self.root).free
        if needed > _FREE_SHARE * (free + held):  # before anything is removed in vain
            raise NotKeptError(f"{needed / 1e9:.1f} GB are more than half of the {free / 1e9:.1f} GB free")
        while entries and (held + needed > self.budget_bytes or needed > shutil.disk_usage(self.root).free):
            oldest = entries.pop(0)
            if self.remove(oldest):
                held -= oldest.bytes

    def _lock(self, digest: str) -> Any:
        from filelock import FileLock

        locks = self.root / "locks"  # beside the entries, since removing one must not remove what guards it
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{digest}.lock")

    @contextlib.contextmanager
    def _locked(self, digest: str, title: str, waiting: Callable[[], None]) -> Iterator[None]:
        from filelock import Timeout

        lock = self._lock(digest)
        try:
            lock.acquire(timeout=1.0)
        except Timeout:
            print(f"waiting for another process that is making: {title}", file=sys.stderr, flush=True)
            while not lock.is_locked:
                waiting()
                with contextlib.suppress(Timeout):
                    lock.acquire(timeout=1.0)
        try:
            yield
        finally:
            lock.release()


class _Array:
    """The files of one entry."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], lengths: Sequence[int]) -> None:
        self.folder, self.dtype = folder, dtype
        self.ends = np.cumsum(np.asarray(lengths, dtype=np.int64)) if len(lengths) else np.zeros(0, dtype=np.int64)
        self.starts = self.ends - np.asarray(lengths, dtype=np.int64)
        self.elements = int(self.ends[-1]) if len(lengths) else 0

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize + 8 * len(self.ends)

    @property
    def sound(self) -> bool:
        """Whether all files are there in their full length, whatever is in them."""
        lengths = {DATA: self.elements * self.dtype.itemsize, BLOCKS: 8 * len(self.ends)}
        try:
            sizes = {name: (self.folder / name).stat().st_size for name in lengths}
        except OSError:
            return False
        return sizes == lengths and (self.folder / DESCRIPTION).exists()

    def create(self, description: Mapping[str, Any]) -> None:
        """All of its room, so that a full disk shows now; the description last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            with (self.folder / DATA).open("wb") as file:
                if hasattr(os, "posix_fallocate") and self.elements:
                    os.posix_fallocate(file.fileno(), 0, self.elements * self.dtype.itemsize)
                file.truncate(self.elements * self.dtype.itemsize)
            np.zeros(len(self.ends), dtype=np.uint64).tofile(self.folder / BLOCKS)
            partial = self.folder / f"{DESCRIPTION}.partial"
            partial.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.folder / DESCRIPTION)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def whole(self) -> npt.NDArray[Any] | None:
        """Read-only, if every block is what was written; marked as used."""
        try:
            data = self._map("r")
            if self._missing(data, np.fromfile(self.folder / BLOCKS, dtype=np.uint64)):
                return None
            os.utime(self.folder / DESCRIPTION)
        except (OSError, ValueError):  # not there, or cut short
            return None
        return data

    def fill(self, make: Make) -> None:
        """Compute what is missing, block by block."""
        data, blocks = self._map("r+"), np.memmap(self.folder / BLOCKS, dtype=np.uint64, mode="r+")
        missing = self._missing(data, blocks)
        for number, block in zip(missing, make(missing), strict=True):
            part = data[self.starts[number] : self.ends[number]]
            part[:] = block.reshape(-1)
            blocks[number] = _THERE + zlib.crc32(part.data)

    def _missing(self, data: npt.NDArray[Any], blocks: npt.NDArray[np.uint64]) -> list[int]:
        if len(blocks) != len(self.ends):
            raise ValueError("of another shape")
        return [
            number
            for number, noted in enumerate(blocks)
            if int(noted) != _THERE + zlib.crc32(data[self.starts[number] : self.ends[number]].data)
        ]

    def _map(self, mode: Any) -> npt.NDArray[Any]:
        if not self.elements:
            return np.zeros(0, dtype=self.dtype)
        data = np.memmap(self.folder / DATA, dtype=self.dtype, mode=mode)
        if len(data) != self.elements:
            raise ValueError("of another length")
        return data


@dataclass(frozen=True)
class Kept:
    """All that is kept.

    Attributes:
        folder: where.
        budget_bytes: that runs take at most unless told otherwise.
        entries: the least recently used first.
    """

    folder: Path
    budget_bytes: int
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """Of all entries."""
        return sum(entry.bytes for entry in self.entries)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        entries = [{**asdict(entry), "path": str(entry.path), "age_s": entry.age_s} for entry in self.entries]
        said = {"folder": str(self.folder), "bytes": self.bytes, "budget_bytes": self.budget_bytes}
        return {**said, "entries": entries}


@dataclass(frozen=True)
class Cleared:
    """What was removed.

    Attributes:
        removed: how many entries, and measurements.
        bytes: that they took.
        busy: titles of those that a process is computing, which were left alone.
    """

    removed: int
    bytes: int
    busy: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def kept() -> Kept:
    """What this user's runs have kept."""
    store = Store(default_budget_bytes())
    return Kept(store.root, store.budget_bytes, tuple(store.entries()))


def clear(kind: str | None = None) -> Cleared:
    """Remove all entries, or those of one kind; `measured` stands for what is remembered of measurements."""
    store = Store(0)
    wanted = [entry for entry in store.entries() if kind in (None, entry.kind)]
    removed = [entry for entry in wanted if store.remove(entry)]
    measured = forget() if kind in (None, "measured") else 0
    busy = tuple(entry.title for entry in wanted if entry not in removed)
    return Cleared(len(removed) + measured, sum(entry.bytes for entry in removed), busy)


def default_budget_bytes() -> int:
    """20 GB, or a fifth of what the disk has free where that is less."""
    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    return min(20 * 10**9, shutil.disk_usage(folder).free // 5)


def _short(lengths: Sequence[int]) -> Any:
    """The lengths themselves may be a million numbers."""
    return [len(lengths), hashlib.sha256(np.asarray(lengths, dtype=np.int64).tobytes()).hexdigest()]
