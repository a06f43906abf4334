"""What was found out about a file is found again until the file changes, and a broken database costs only time."""

import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest

from lensmith.core import file_memo
from lensmith.core.file_memo import NAME, Values, clear_file_memo, memoized_by_file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / os.fsdecode(name) for name in (b"a", b"\xff not utf-8", "ü".encode())]
    for file in made:
        file.write_bytes(os.fsencode(file.name))
    return made


class Reader:
    """The content of a file and its length; remembers which files it read."""

    def __init__(self) -> None:
        self.read: list[Path] = []

    def __call__(self, path: Path) -> Values:
        self.read.append(path)
        try:
            content = path.read_bytes()
        except OSError:
            return None, None
        return content, str(len(content)).encode()


def ask(files: list[Path], kinds: tuple[str, str] = ("content", "length")) -> tuple[list[Values], list[Path]]:
    reader = Reader()
    return list(memoized_by_file(kinds, files, reader)), sorted(reader.read)


def test_each_file_is_read_once_until_it_changes(cache: Path, files: list[Path]) -> None:
    first, read = ask(files)
    assert first == [(os.fsencode(file.name), str(len(os.fsencode(file.name))).encode()) for file in files]
    assert read == sorted(files)
    assert ask(files) == (first, [])
    before = files[1].stat()
    files[1].write_bytes(bytes(reversed(files[1].read_bytes())))
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    now, read = ask(files)
    assert read == [files[1]]
    assert now[1][0] == files[1].read_bytes()
    assert ask(files) == (now, [])


def test_another_kind_is_another_result_and_one_that_is_missing_costs_a_read(cache: Path, files: list[Path]) -> None:
    ask(files)
    assert ask(files, ("content", "length in another version"))[1] == sorted(files)
    assert ask(files, ("length in another version", "content"))[1] == []


def test_what_cannot_be_read_is_asked_again(cache: Path, files: list[Path]) -> None:
    files[0].unlink()
    assert ask(files)[0][0] == (None, None)
    files[0].write_bytes(b"back")
    values, read = ask(files)
    assert (values[0][0], read) == (b"back", [files[0]])


def test_a_file_that_changes_while_it_is_read_is_read_again(cache: Path, files: list[Path]) -> None:
    def changes(path: Path) -> Values:
        path.write_bytes(b"later " + path.read_bytes())
        return (b"before",)

    assert list(memoized_by_file(("content",), files, changes)) == [(b"before",)] * 3
    assert [values[0] for values in ask(files)[0]] == [file.read_bytes() for file in files]


@pytest.mark.parametrize("damage", [b"no database", bytes(5000)])
def test_a_damaged_database_is_made_anew(cache: Path, files: list[Path], damage: bytes) -> None:
    right, _ = ask(files)
    (cache / NAME).write_bytes(damage)
    for name in (f"{NAME}-wal", f"{NAME}-shm"):
        (cache / name).unlink(missing_ok=True)
    assert ask(files) == (right, sorted(files))
    assert ask(files) == (right, [])


def test_without_a_folder_to_write_to_everything_is_read_each_time(cache: Path, files: list[Path]) -> None:
    cache.write_text("in the way")
    right, read = ask(files)
    assert ask(files) == (right, read)
    assert read == sorted(files)


def test_another_process_that_writes_delays_nothing_for_long(
    cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, _ = ask(files[:1])
    monkeypatch.setattr(file_memo, "_WAIT_S", 0.05)
    other = sqlite3.connect(cache / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert ask(files)[0][:1] == right
    assert ask(files)[1] == sorted(files[1:])
    other.execute("COMMIT")
    other.close()
    ask(files)
    assert ask(files)[1] == []


def test_a_database_that_grew_too_large_begins_anew(
    cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(files)
    monkeypatch.setattr(file_memo, "LARGEST_BYTES", 10)
    assert ask(files)[1] == sorted(files)


def test_it_can_be_cleared(cache: Path, files: list[Path]) -> None:
    assert clear_file_memo() == 0
    ask(files)
    assert clear_file_memo() == 1
    assert ask(files)[1] == sorted(files)


def _ask_many(folder: Path) -> None:
    for _ in range(5):
        assert len(ask(sorted(folder.iterdir()))[0]) == 700


def test_several_processes_at_once_lose_nothing(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(700):  # more than a batch
        (folder / f"{number}").write_bytes(b"%d" % number)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ask_many, args=(folder,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    files = sorted(folder.iterdir())
    values, read = ask(files)
    assert read == []
    assert [value[0] for value in values] == [file.read_bytes() for file in files]
