"""Hashes of the data: correct, and recomputed only where something may have changed."""

import hashlib
import os
from pathlib import Path

import pytest

from lensmith.data.scan import scan
from lensmith.workflows.pipeline import data_hashes


def test_each_hash_is_that_of_the_file(colours: Path, tmp_path: Path) -> None:
    images = scan(colours)
    found = data_hashes.hash_images(images, tmp_path / "cache.json")
    assert found == {s.path: hashlib.sha256(images.file(s).read_bytes()).hexdigest() for s in images.samples}
    assert data_hashes.hash_images(images, tmp_path / "cache.json") == found


def test_only_what_may_have_changed_is_read_again(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache, read = scan(colours), tmp_path / "cache.json", []
    first = data_hashes.hash_images(images, cache)
    hashed = data_hashes._hash_files
    monkeypatch.setattr(data_hashes, "_hash_files", lambda root, paths: read.extend(paths) or hashed(root, paths))
    data_hashes.hash_images(images, cache)
    assert read == []
    file, other = colours / "red/000.png", colours / "red/002.png"
    times = file.stat()
    file.write_bytes(other.read_bytes()[: times.st_size].ljust(times.st_size, b"x"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as many bytes, and as old as before
    assert data_hashes.hash_images(images, cache)["red/000.png"] != first["red/000.png"]
    assert read == ["red/000.png"]


def test_a_missing_file_has_a_hash_of_its_own(colours: Path, tmp_path: Path) -> None:
    images = scan(colours)
    before = data_hashes.digest(images, data_hashes.hash_images(images, tmp_path / "cache.json"))
    (colours / "red/000.png").unlink()
    found = data_hashes.hash_images(images, tmp_path / "cache.json")
    assert found["red/000.png"] == "gone"
    assert data_hashes.digest(images, found) != before


def test_a_move_to_another_class_is_another_set(colours: Path, tmp_path: Path) -> None:
    images = scan(colours)
    before = data_hashes.digest(images, data_hashes.hash_images(images, tmp_path / "a.json"))
    (colours / "red/000.png").rename(colours / "blue/red-000.png")
    moved = scan(colours)
    assert data_hashes.digest(moved, data_hashes.hash_images(moved, tmp_path / "a.json")) != before
