"""Disk cache of computed arrays by key, with a size budget and removal of the least recently used.

An entry is a flat array in blocks. The CRC-32 of a block is recorded after the block is written, so after a kill or a
power cut only damaged or missing blocks are computed again. One process at a time computes an entry; others wait.

    CACHE/kept/KIND/DIGEST/entry.json   description: key, dtype, lengths, title
                           data         the array
                           blocks       uint64 per block: 0, or 2^32 + CRC-32
                           rows         see `core.row_cache`; only in entries of rows
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lensmith.core.files import atomic_write
from lensmith.core.locks import LockTimeoutError, locked
from lensmith.core.machine import cache_dir
from lensmith.core.result import Result

ComputeBlocks = Callable[[Sequence[int]], Iterator[npt.NDArray[Any]]]
"""Function from the numbers of missing blocks to these blocks, in that order."""

DESCRIPTION, DATA, BLOCKS = "entry.json", "data", "blocks"
WRITTEN = 1 << 32
"""Added to the CRC-32 of a written block, so that it differs from 0."""
_FREE_SHARE = 0.5
"""Largest share of the disk's free space that the cache uses, whatever the budget."""


class NotCachedError(Exception):
    """The cache has no room for an array, or cannot be written to."""


@dataclass(frozen=True)
class CacheEntry(Result):
    """One cached array.

    Attributes:
        kind: kind of the entry: `features`, `pixels` or `answers`.
        path: folder of the entry.
        title: description for people.
        bytes: size on disk in bytes.
        used: time of the last use, in seconds since 1970.
        whole: False if the process that computed it was stopped; the next one to need it resumes.
    """

    computed: ClassVar[tuple[str, ...]] = ("age_s",)

    kind: str
    path: Path
    title: str
    bytes: int
    used: float
    whole: bool

    @property
    def age_s(self) -> float:
        """Seconds since the last use."""
        return max(0.0, time.time() - self.used)


class ArrayCache:
    """The cached arrays in one folder.

    Args:
        budget_bytes: largest size of all entries together, in bytes.
        root: folder of the cache; that of the current user by default.
    """

    def __init__(self, budget_bytes: int, root: Path | None = None) -> None:
        self.budget_bytes, self.root = budget_bytes, root or cache_dir() / "kept"

    def get_or_compute(
        self, kind: str, key: Mapping[str, Any], dtype: str, lengths: Sequence[int], compute: ComputeBlocks, title: str,
        waiting: Callable[[], None] = lambda: None, *,
        about: Mapping[str, Any] | None = None, beside: Mapping[str, bytes] | None = None,
    ) -> npt.NDArray[Any]:  # fmt: skip
        """The array with this key; missing blocks are computed.

        Args:
            kind: kind of the entry, which names its folder.
            key: plain values that the array depends on, all of them.
            dtype: NumPy's name of the elements' dtype.
            lengths: number of elements in each block.
            compute: function that computes blocks.
            title: description for people.
            waiting: callback about every second while another process computes the array; its exceptions end the wait.
            about: further plain values for the entry's description, such as `family` for `folders_of`.
            beside: further files of the entry, by name.

        Returns:
            Array of shape (sum of lengths,), read-only and mapped into memory; it stays valid if the entry is removed.

        Raises:
            NotCachedError: no room for the array, or a folder that cannot be written to.
        """
        description = _describe(kind, key, dtype, lengths)
        digest = _digest(description)
        folder = self.root / kind / digest
        files = _EntryFiles(folder, np.dtype(dtype), lengths)
        if (found := files.read()) is not None:
            return found
        try:
            with self._locked(digest, title, waiting):
                if not files.have_full_size:
                    self._make_room(sum(files.sizes.values()) + sum(map(len, (beside or {}).values())))
                    files.create({**description, "title": title, **(about or {})}, beside or {})
                files.compute_missing(compute)
                found = files.read()
        except OSError as error:
            raise NotCachedError(f"{error.strerror or error} ({folder})") from error
        if found is None:
            raise NotCachedError(f"the array on disk differs from what was written ({folder})")
        return found

    def find(self, kind: str, key: Mapping[str, Any], dtype: str, lengths: Sequence[int]) -> npt.NDArray[Any] | None:
        """The array with this key as `get_or_compute` returns it, of any dtype and shape (elements,).

        None if it, or a block of it, is missing.
        """
        folder = self.root / kind / _digest(_describe(kind, key, dtype, lengths))
        return _EntryFiles(folder, np.dtype(dtype), lengths).read()

    def folders_of(self, kind: str, family: str) -> list[Path]:
        """Folders of the entries that were made with this `family`, the most recently used first."""
        found = []
        for description in (self.root / kind).glob(f"*/{DESCRIPTION}"):
            with contextlib.suppress(OSError, ValueError):  # another process may be removing it
                if json.loads(description.read_text(encoding="utf-8")).get("family") == family:
                    found.append((description.stat().st_mtime_ns, description.parent))
        return [folder for _, folder in sorted(found, reverse=True)]

    def entries(self) -> list[CacheEntry]:
        """All entries, the least recently used first."""
        found = []
        for description in self.root.glob(f"*/*/{DESCRIPTION}"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # another process may be removing it
                folder, content = description.parent, json.loads(description.read_text(encoding="utf-8"))
                size = sum(file.stat().st_size for file in folder.iterdir() if file != description)
                whole = bool(np.fromfile(folder / BLOCKS, dtype=np.uint64).all())
                used = description.stat().st_mtime
                found.append(CacheEntry(folder.parent.name, folder, content["title"], size, used, whole))
        return sorted(found, key=lambda entry: entry.used)

    def remove(self, entry: CacheEntry) -> bool:
        """Remove an entry; False if another process is computing it."""
        try:
            with locked(self._lock_file(entry.path.name), timeout_s=0):
                trash = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.root))
                entry.path.rename(trash / entry.path.name)  # so that no process finds half an entry
                shutil.rmtree(trash, ignore_errors=True)
        except (LockTimeoutError, OSError):
            return False
        return True

    def _make_room(self, needed: int) -> None:
        """Remove least recently used entries until `needed` bytes fit.

        Raises:
            NotCachedError: more bytes than could ever fit.
        """
        if needed > self.budget_bytes:
            raise NotCachedError(f"{needed / 1e9:.1f} GB are more than the budget of {self.budget_bytes / 1e9:.1f} GB")
        self.root.mkdir(parents=True, exist_ok=True)
        entries = self.entries()
        used = sum(entry.bytes for entry in entries)
        free = shutil.disk_usage(self.root).free
        if needed > _FREE_SHARE * (free + used):  # checked before anything is removed in vain
            raise NotCachedError(f"{needed / 1e9:.1f} GB are more than half of the {free / 1e9:.1f} GB free")
        while entries and (used + needed > self.budget_bytes or needed > shutil.disk_usage(self.root).free):
            oldest = entries.pop(0)
            if self.remove(oldest):
                used -= oldest.bytes

    def _lock_file(self, digest: str) -> Path:
        locks = self.root / "locks"  # beside the entries, so that removing an entry does not remove its lock
        locks.mkdir(parents=True, exist_ok=True)
        return locks / f"{digest}.lock"

    @contextlib.contextmanager
    def _locked(self, digest: str, title: str, waiting: Callable[[], None]) -> Iterator[None]:
        with contextlib.ExitStack() as lock:
            for attempt in itertools.count():
                try:
                    lock.enter_context(locked(self._lock_file(digest), timeout_s=1.0))
                    break
                except LockTimeoutError:
                    if attempt == 0:
                        print(f"waiting for another process that is computing: {title}", file=sys.stderr, flush=True)
                    waiting()
            yield


def _describe(kind: str, key: Mapping[str, Any], dtype: str, lengths: Sequence[int]) -> dict[str, Any]:
    # The lengths may be a million numbers, so their hash stands for them.
    hashed = hashlib.sha256(np.asarray(lengths, dtype=np.int64).tobytes()).hexdigest()
    return {"kind": kind, "key": dict(key), "dtype": dtype, "lengths": [len(lengths), hashed]}


def _digest(description: Mapping[str, Any]) -> str:
    """Name of an entry's folder."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


class _EntryFiles:
    """The files of one entry."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], lengths: Sequence[int]) -> None:
        self.folder, self.dtype = folder, dtype
        self.edges = np.cumsum([0, *lengths])
        self.elements = int(self.edges[-1])
        self.sizes = {DATA: self.elements * dtype.itemsize, BLOCKS: 8 * len(lengths)}

    @property
    def have_full_size(self) -> bool:
        """Whether all files exist with their full size, whatever their content."""
        try:
            sizes = {name: (self.folder / name).stat().st_size for name in self.sizes}
        except OSError:
            return False
        return sizes == self.sizes and (self.folder / DESCRIPTION).exists()

    def create(self, description: Mapping[str, Any], beside: Mapping[str, bytes]) -> None:
        """Allocate all files, so that a full disk fails now; the description is written last.

        Args:
            description: content of the description.
            beside: further files, by name.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            with (self.folder / DATA).open("wb") as file:
                if hasattr(os, "posix_fallocate") and self.elements:
                    os.posix_fallocate(file.fileno(), 0, self.sizes[DATA])
                file.truncate(self.sizes[DATA])
            (self.folder / BLOCKS).write_bytes(bytes(self.sizes[BLOCKS]))
            for name, content in beside.items():
                (self.folder / name).write_bytes(content)
            atomic_write(self.folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def read(self) -> npt.NDArray[Any] | None:
        """The read-only array, of any dtype and shape (elements,), marked as used; None if a block is missing."""
        try:
            data = self._map("r")
            if self._missing(data, np.fromfile(self.folder / BLOCKS, dtype=np.uint64)):
                return None
            os.utime(self.folder / DESCRIPTION)
        except (OSError, ValueError):  # missing or truncated
            return None
        return data

    def compute_missing(self, compute: ComputeBlocks) -> None:
        """Compute and write the missing blocks."""
        data, blocks = self._map("r+"), np.memmap(self.folder / BLOCKS, dtype=np.uint64, mode="r+")
        missing = self._missing(data, blocks)
        for number, block in zip(missing, compute(missing), strict=True):
            part = data[self.edges[number] : self.edges[number + 1]]
            part[:] = block.reshape(-1)
            blocks[number] = WRITTEN + zlib.crc32(part.data)

    def _missing(self, data: npt.NDArray[Any], blocks: npt.NDArray[np.uint64]) -> list[int]:
        """Numbers of the blocks that differ from what was recorded.

        Raises:
            ValueError: another number of blocks was recorded.
        """
        crcs = [WRITTEN + zlib.crc32(data[start:end].data) for start, end in itertools.pairwise(self.edges)]
        pairs = zip(blocks.tolist(), crcs, strict=True)
        return [number for number, (recorded, crc) in enumerate(pairs) if recorded != crc]

    def _map(self, mode: Any) -> npt.NDArray[Any]:
        if not self.elements:
            return np.zeros(0, dtype=self.dtype)
        data = np.memmap(self.folder / DATA, dtype=self.dtype, mode=mode)
        if len(data) != self.elements:
            raise ValueError("another number of elements")
        return data
