"""A row is computed once for each content, whatever lists it is in, and damage or a kill costs only what it hit."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmith.core import row_cache
from lensmith.core.array_cache import DATA, ArrayCache, NotCachedError
from lensmith.core.row_cache import ROWS, RowKey, rows_by_content

KEY = RowKey("features", {"weights": 1}, "float32")


def row(content: str) -> np.ndarray[Any, Any]:
    """The right row of a content: as many numbers as it has characters."""
    return np.frombuffer(content.encode(), dtype=np.uint8).astype(np.float32)


class Asked:
    """Asks for the rows of contents given as words, and remembers which were computed."""

    def __init__(self, store: ArrayCache) -> None:
        self.store, self.computed = store, ""

    def __call__(
        self, words: str, key: RowKey = KEY, wider: RowKey | None = None, before: Callable[[int], object] = int
    ) -> str:
        """Check the rows of the words, and return the words that were computed; `before` is called at each third."""
        contents = words.split()
        made: list[str] = []

        def compute(numbers: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
            for start in range(0, len(numbers), 3):
                some = [contents[number] for number in numbers[start : start + 3]]
                made.extend(some)
                before(start)
                yield np.concatenate([row(content) for content in some])

        digests = [None if content == "gone" else sha256(content.encode()).digest() for content in contents]
        found = rows_by_content(
            self.store,
            key,
            digests,
            [len(content) for content in contents],
            compute,
            words,
            rows_a_block=2,
            wider=wider,
        )
        assert found.dtype == key.dtype
        assert np.array_equal(found, np.concatenate([row(content) for content in contents]).astype(key.dtype))
        return " ".join(made)


@pytest.fixture
def ask(tmp_path: Path) -> Asked:
    return Asked(ArrayCache(10**6, tmp_path / "kept"))


def test_only_new_contents_are_computed(ask: Asked) -> None:
    assert ask("a bcd ef ghijk l") == "a bcd ef ghijk l"
    assert ask("a bcd ef ghijk l") == ""
    assert ask("l ef a") == ""
    assert ask("new a bcd ef ghijk l newer") == "new newer"
    assert ask("newer l other new") == "other"
    assert ask("other l l l") == ""


def test_rows_that_depend_on_other_values_are_others(ask: Asked) -> None:
    ask("a b")
    assert ask("b a", RowKey("features", {"weights": 2}, "float32")) == "b a"
    assert ask("b a", RowKey("features", {"weights": 1}, "float64")) == "b a"
    assert ask("b a", RowKey("pixels", {"weights": 1}, "float32")) == "b a"


def test_contents_that_are_not_known_are_computed_each_time(ask: Asked) -> None:
    ask("gone a")
    assert ask("a gone b") == "gone b"


def test_rows_of_a_wider_dtype_are_converted_where_that_loses_no_range(ask: Asked) -> None:
    half = RowKey("features", {"weights": 1}, "float16")
    ask("a bcd ef")
    assert ask("ef a", half, wider=KEY) == ""
    (entry,) = (one for one in ask.store.entries() if one.title == "a bcd ef")
    data = np.memmap(entry.path / DATA, dtype=np.float32, mode="r+")
    data[:] *= 1000  # beyond float16; the checksum is made to fit
    for source in row_cache._sources(ask.store, KEY):
        source.blocks[:] = [row_cache.WRITTEN + row_cache.zlib.crc32(data[s:e].data) for s, e in ((0, 4), (4, 6))]
        assert not source.is_usable(0, np.dtype(np.float16))


@pytest.mark.parametrize(
    ("file", "offset", "lost"), [(DATA, 0, "a bcd"), (DATA, -1, "l"), (ROWS, 9, "a bcd ef ghijk l")]
)
def test_damaged_rows_are_never_copied(ask: Asked, file: str, offset: int, lost: str) -> None:
    ask("a bcd ef ghijk l")
    damaged = ask.store.entries()[0].path / file
    content = bytearray(damaged.read_bytes())
    content[offset] ^= 1
    damaged.write_bytes(bytes(content))
    assert set(ask("l ghijk ef bcd a").split()) == set(lost.split())


def test_an_entry_that_makes_room_still_gives_its_rows(ask: Asked) -> None:
    ask("a bcd ef ghijk l")
    ask.store.budget_bytes = ask.store.entries()[0].bytes + 1
    assert ask("ghijk l a") == ""
    assert [entry.title for entry in ask.store.entries()] == ["ghijk l a"]
    ask.store.budget_bytes = 10
    with pytest.raises(NotCachedError):
        ask("a b")


def test_nothing_is_nothing(ask: Asked) -> None:
    found = rows_by_content(ask.store, KEY, [], [], lambda numbers: iter(()), "none", rows_a_block=2)
    assert found.size == 0


@pytest.fixture
def other(ask: Asked) -> Callable[[int, str], tuple[Any, Any]]:
    """Starts another process that asks, and has come to a word by its number; it goes on when the event is set."""
    fork = multiprocessing.get_context("fork")

    def start(number: int, words: str) -> tuple[Any, Any]:
        reached, go_on = fork.Event(), fork.Event()

        def wait(at: int) -> None:
            if at == number:
                reached.set()
                go_on.wait()

        process = fork.Process(target=lambda: Asked(ArrayCache(10**6, ask.store.root))(words, before=wait))
        process.start()
        assert reached.wait(30)
        return process, go_on

    return start


def test_blocks_of_a_killed_process_are_copied_to_other_lists(ask: Asked, other: Any) -> None:
    process, _ = other(6, "a b c d e f g h i")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    computed = ask("i h g f e d c b a").split()
    assert "i" in computed
    assert "a" not in computed


def test_two_processes_compute_a_list_once(ask: Asked, other: Any) -> None:
    process, go_on = other(0, "a b c d e f")
    threading.Timer(0.1, go_on.set).start()
    assert ask("a b c d e f") == ""
    process.join()
    assert process.exitcode == 0
