"""Hashes of the data: correct, and others whenever something has changed."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from lensmith.data.scan import scan
from lensmith.workflows.pipeline import data_hashes


def test_each_hash_is_that_of_the_file(colours: Path) -> None:
    images = scan(colours)
    found = data_hashes.hash_images(images)
    assert found == {s.path: hashlib.sha256(images.file(s).read_bytes()).hexdigest() for s in images.samples}
    file, other = colours / "red/000.png", colours / "red/002.png"
    times = file.stat()
    file.write_bytes(other.read_bytes()[: times.st_size].ljust(times.st_size, b"x"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as many bytes, and as old as before
    assert data_hashes.hash_images(images) == {**found, "red/000.png": hashlib.sha256(file.read_bytes()).hexdigest()}


def test_a_missing_file_has_a_hash_of_its_own(colours: Path) -> None:
    images = scan(colours)
    before = data_hashes.digest(images, data_hashes.hash_images(images))
    (colours / "red/000.png").unlink()
    found = data_hashes.hash_images(images)
    assert found["red/000.png"] == "gone"
    assert data_hashes.digest(images, found) != before


def test_a_move_to_another_class_or_group_is_another_set(colours: Path) -> None:
    images = scan(colours)
    before = data_hashes.digest(images, data_hashes.hash_images(images))
    (colours / "red/000.png").rename(colours / "blue/red-000.png")
    moved = scan(colours)
    assert data_hashes.digest(moved, data_hashes.hash_images(moved)) != before
    grouped = replace(moved, samples=(replace(moved.samples[0], group="one"), *moved.samples[1:]))
    hashes = data_hashes.hash_images(grouped)
    assert data_hashes.digest(grouped, hashes) != data_hashes.digest(moved, hashes)
