"""What is computed once stays, is never half, never stale, and never more than the budget."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmith.core.array_cache import BLOCKS, DATA, ArrayCache, NotCachedError

LENGTHS = [3, 4, 0, 5]
WHOLE = np.arange(12, dtype=np.float16)


class Work:
    """Makes the blocks of WHOLE, and remembers which."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.made: list[int] = []
        self.stop_after = stop_after

    def __call__(self, numbers: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
        ends = np.cumsum(LENGTHS)
        for number in numbers:
            if len(self.made) == self.stop_after:
                raise InterruptedError
            self.made.append(number)
            yield WHOLE[ends[number] - LENGTHS[number] : ends[number]]


def obtain(store: ArrayCache, work: Work, key: int = 0) -> np.ndarray[Any, Any]:
    return store.get_or_compute("features", {"key": key}, "float16", LENGTHS, work, f"entry {key}")


@pytest.fixture
def store(tmp_path: Path) -> ArrayCache:
    return ArrayCache(10**6, tmp_path / "kept")


def test_what_was_computed_is_found_again_and_another_key_is_another_entry(store: ArrayCache) -> None:
    first, again, other = Work(), Work(), Work()
    assert np.array_equal(obtain(store, first), WHOLE)
    found = obtain(ArrayCache(10**6, store.root), again)
    assert np.array_equal(found, WHOLE)
    assert not found.flags.writeable
    obtain(store, other, key=1)
    assert (first.made, again.made, other.made) == ([0, 1, 2, 3], [], [0, 1, 2, 3])


def test_work_that_was_stopped_is_resumed(store: ArrayCache) -> None:
    with pytest.raises(NotCachedError):  # InterruptedError is the system's, as a full disk's error is
        obtain(store, Work(stop_after=2))
    (entry,) = store.entries()
    assert not entry.whole
    rest = Work()
    assert np.array_equal(obtain(store, rest), WHOLE)
    assert rest.made == [3] or rest.made == [2, 3]
    assert store.entries()[0].whole


@pytest.mark.parametrize("byte", [0, 10, 23])
def test_a_damaged_block_is_computed_again_and_no_other(store: ArrayCache, byte: int) -> None:
    obtain(store, Work())
    data = store.entries()[0].path / DATA
    damaged = bytearray(data.read_bytes())
    damaged[byte] ^= 1
    data.write_bytes(bytes(damaged))
    again = Work()
    assert np.array_equal(obtain(store, again), WHOLE)
    assert again.made == [int(np.searchsorted(2 * np.cumsum(LENGTHS), byte, side="right"))]


@pytest.mark.parametrize("name", [DATA, BLOCKS])
def test_a_file_cut_short_is_not_taken_for_whole(store: ArrayCache, name: str) -> None:
    obtain(store, Work())
    file = store.entries()[0].path / name
    os.truncate(file, file.stat().st_size // 2)
    again = Work()
    assert np.array_equal(obtain(store, again), WHOLE)
    assert again.made == [0, 1, 2, 3]


def _killed(root: Path, ready: Any) -> None:
    def slow(numbers: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
        for count, block in enumerate(Work()(numbers)):
            if count == 2:
                ready.set()
                time.sleep(60)
            yield block

    obtain(ArrayCache(10**6, root), slow)  # type: ignore[arg-type]


def test_a_killed_process_leaves_what_it_had_and_no_lock(store: ArrayCache) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_killed, args=(store.root, ready))
    process.start()
    assert ready.wait(30)
    os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    process.join()
    rest = Work()
    assert np.array_equal(obtain(store, rest), WHOLE)
    assert 0 not in rest.made


def _one_of_two(root: Path, made: Any) -> None:
    def slow(numbers: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
        for block in Work()(numbers):
            made.value += 1
            time.sleep(0.05)
            yield block

    assert np.array_equal(obtain(ArrayCache(10**6, root), slow), WHOLE)  # type: ignore[arg-type]


def test_two_processes_at_once_compute_an_entry_once(store: ArrayCache) -> None:
    context = multiprocessing.get_context("fork")
    made = context.Value("i", 0)
    processes = [context.Process(target=_one_of_two, args=(store.root, made)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert made.value == len(LENGTHS)


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    one = 2 * len(WHOLE) + 8 * len(LENGTHS)
    store = ArrayCache(2 * one, tmp_path / "kept")
    for key in (0, 1):
        obtain(store, Work(), key)
        time.sleep(0.02)
    held = obtain(store, Work(), 0)  # used again, so 1 is the older
    time.sleep(0.02)
    obtain(store, Work(), 2)
    assert [entry.title for entry in store.entries()] == ["entry 0", "entry 2"]
    assert sum(entry.bytes for entry in store.entries()) <= store.budget_bytes
    assert all(store.remove(entry) for entry in store.entries())
    assert np.array_equal(held, WHOLE)  # what is mapped stays readable


@pytest.mark.parametrize(("budget", "root"), [(10, "kept"), (10**6, "file/kept")])
def test_what_is_over_the_budget_or_cannot_be_written_is_not_cached(tmp_path: Path, budget: int, root: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotCachedError):
        obtain(ArrayCache(budget, tmp_path / root), Work())
