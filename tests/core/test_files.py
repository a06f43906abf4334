"""Atomic writes: whole or as before, whatever goes wrong, and nothing left behind."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lensmith.core import files
from lensmith.core.files import (
    MEMORY,
    atomic_path,
    atomic_write,
    atomic_write_all,
    replace_directory,
    staging_directory,
    stat_stamp,
    temporary_directory,
)
from lensmith.errors import OutputError


def test_a_file_is_replaced_and_has_the_given_mode(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    atomic_write(path, "old")
    atomic_write(path, "neu: ä", mode=0o600)
    assert path.read_text(encoding="utf-8") == "neu: ä"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_no_utf8_are_written_unchanged(tmp_path: Path) -> None:
    atomic_write(tmp_path / "list", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "list").read_bytes() == b"caf\xe9"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "table.csv"
    atomic_write(path, "old")

    def fail() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_files_are_written_or_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError):
        atomic_write_all({tmp_path / "a": "new", tmp_path / "missing" / "b": b"new"})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "old")]
    atomic_write_all({tmp_path / "a": "new", tmp_path / "b": b"new"})
    assert {(file.name, file.read_text()) for file in tmp_path.iterdir()} == {("a", "new"), ("b", "new")}


def test_the_content_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    synced: list[bool] = []
    monkeypatch.setattr(files.os, "fsync", lambda number: synced.append(path.exists()))
    atomic_write(path, b"content")
    assert synced == [False, True]  # the file before it is renamed, its folder after
    atomic_write(path, b"other", sync=False)
    assert (path.read_bytes(), len(synced)) == (b"other", 2)


def test_a_stamp_changes_with_the_content_even_at_the_same_size_and_date(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert stat_stamp(path) is None
    path.write_bytes(b"one")
    before, times = stat_stamp(path), path.stat()
    assert stat_stamp(path) == before
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stat_stamp(path) != before


def test_writers_at_once_share_no_temporary_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: atomic_write(path, str(number) * 100_000), range(8)))
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["plot.png", "é" * 120 + "x" * 11 + ".png", "." + "x" * 254, "a." + "x" * 253])
def test_every_name_that_file_systems_take_is_written_by_way_of_a_hidden_partial_file(
    tmp_path: Path, name: str
) -> None:
    with atomic_path(tmp_path / name) as partial:
        partial.touch()
        assert partial.name.startswith(f".{name[:100]}")
        assert ".partial" in partial.suffixes
        assert partial.suffix == ".png" or not name.endswith(".png")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_directory_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    for name in ("a", "b"):
        with staging_directory(target) as staging:
            (staging / name).touch()
            replace_directory(staging, target)
    assert [file.name for file in target.iterdir()] == ["b"]
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_directory_that_cannot_be_renamed_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if to == target and not self.name.endswith(".older"):
            raise OSError("refused")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="refused"), staging_directory(target) as staging:
        replace_directory(staging, target)
    assert [file.name for file in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_in_a_staging_directory_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), staging_directory(tmp_path / "x") as staging:
        raise ValueError(staging.joinpath("no").touch() or "no")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not MEMORY.is_dir(), reason="this system has no file system in memory")
def test_where_no_disk_may_be_written_to_a_temporary_directory_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with temporary_directory("lensmith-test-") as folder:
        assert Path(folder).parent == MEMORY
        (Path(folder) / "file").write_bytes(b"1")
    assert not Path(folder).exists()
    monkeypatch.setattr(files, "MEMORY", tmp_path / "gone")
    with pytest.raises(OutputError, match="No usable temporary directory"):
        temporary_directory("lensmith-test-")
