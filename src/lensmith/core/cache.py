"""Contents of the cache that runs share (features, pixels, answers, measurements), and how to clear it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lensmith.core.array_cache import ArrayCache, CacheEntry
from lensmith.core.machine import cache_dir
from lensmith.core.memoized import clear_memoized
from lensmith.core.result import Result


@dataclass(frozen=True)
class CacheContents(Result):
    """All cached arrays.

    Attributes:
        folder: folder of the cache.
        budget_bytes: default budget of runs in bytes.
        entries: all entries, the least recently used first.
    """

    computed: ClassVar[tuple[str, ...]] = ("bytes",)

    folder: Path
    budget_bytes: int
    entries: tuple[CacheEntry, ...]

    @property
    def bytes(self) -> int:
        """Size of all entries in bytes."""
        return sum(entry.bytes for entry in self.entries)


@dataclass(frozen=True)
class CacheClearResult(Result):
    """Result of clearing the cache.

    Attributes:
        removed: number of removed entries and measurements.
        bytes: size of the removed entries in bytes.
        busy: titles of entries that a process is computing, which were not removed.
    """

    removed: int
    bytes: int
    busy: tuple[str, ...]


def list_cache() -> CacheContents:
    """The cached arrays of this user's runs."""
    cache = ArrayCache(default_budget_bytes())
    return CacheContents(cache.root, cache.budget_bytes, tuple(cache.entries()))


def clear_cache(kind: str | None = None) -> CacheClearResult:
    """Remove all entries, or those of one kind; `measured` is the kind of memoized measurements."""
    cache = ArrayCache(0)
    wanted = [entry for entry in cache.entries() if kind in (None, entry.kind)]
    removed = [entry for entry in wanted if cache.remove(entry)]
    measured = clear_memoized() if kind in (None, "measured") else 0
    busy = tuple(entry.title for entry in wanted if entry not in removed)
    return CacheClearResult(len(removed) + measured, sum(entry.bytes for entry in removed), busy)


def default_budget_bytes() -> int:
    """20 GB, or a fifth of the disk's free space if that is less."""
    folder = next(path for path in (cache_dir(), *cache_dir().parents) if path.exists())
    return min(20 * 10**9, shutil.disk_usage(folder).free // 5)
