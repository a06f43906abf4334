"""Files that cannot be decoded leave a set before anything of it is counted."""

import os
from pathlib import Path

import pytest

from lensmith.data import readable
from lensmith.data.readable import without_unreadable
from lensmith.data.scan import scan
from lensmith.data.split import SplitSettings, prepare, split
from lensmith.errors import DataError

HEIC = b"\0\0\0\x18ftypheic" + bytes(400)


def spoil(folder: Path, count: int, name: str = "IMG") -> list[str]:
    """Add files that look like images and are none; their names."""
    for number in range(count):
        (folder / f"{name}_{number}.jpg").write_bytes(HEIC)
    return [f"{folder.name}/{name}_{number}.jpg" for number in range(count)]


def test_what_cannot_be_decoded_is_set_aside_with_its_reason(colours: Path) -> None:
    clean = scan(colours)
    assert without_unreadable(clean) is clean
    bad = spoil(colours / "red", 3)
    cut = colours / "blue" / "000.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    found = without_unreadable(scan(colours))
    assert {path for path, _ in found.set_aside} == {*bad, "blue/000.png"}
    assert all(reason for _, reason in found.set_aside)
    assert len(found.samples) == len(clean.samples) - 1
    assert any("4 of 27" in note for note in found.warnings)


def test_files_are_decoded_once_until_they_change(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(colours / "red", 1)
    read: list[Path] = []
    plain = readable.read
    monkeypatch.setattr(readable, "read", lambda path: (read.append(path), plain(path))[1])
    before = without_unreadable(scan(colours))
    assert len(read) == 25
    assert without_unreadable(scan(colours)) == before
    assert len(read) == 25
    (colours / "red" / "IMG_0.jpg").write_bytes((colours / "red" / "000.png").read_bytes())
    os.utime(colours / "red" / "IMG_0.jpg", ns=(1, 1))
    assert len(without_unreadable(scan(colours)).samples) == 25


def test_shares_of_a_split_are_of_what_is_there(colours: Path) -> None:
    """Eight images of each class, and as many files again that are none in one of them."""
    clean = [(sample.path, sample.part) for sample in prepare(colours, (5, 3, 2), 0).samples]
    spoil(colours / "red", 8)
    found = prepare(colours, (5, 3, 2), 0)
    assert [(sample.path, sample.part) for sample in found.samples] == clean
    made = split(SplitSettings(folder=colours, ratio=(5, 3, 2)))
    assert made.classes["red"] == made.classes["blue"]
    assert sum(made.counts.values()) == 24
    assert "IMG" not in made.manifest.read_text()
    assert any("8 of 32" in note for note in made.warnings)


def test_parts_of_which_nothing_is_readable_are_an_error(colours: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "set" / part).mkdir(parents=True)
        for label in ("red", "blue"):
            (tmp_path / "set" / part / label).mkdir()
            for number in range(2):
                content = (colours / label / "000.png").read_bytes() if part == "train" else HEIC
                (tmp_path / "set" / part / label / f"{number}.png").write_bytes(content)
    with pytest.raises(DataError, match=r"the part val of .*None of 4 can; the first, val/blue/0.png: .*data check"):
        prepare(tmp_path / "set", (8, 1, 1), 0)
    for file in colours.rglob("*.*"):
        file.write_bytes(HEIC)
    with pytest.raises(DataError, match=r"None of 24 can"):
        prepare(colours, (8, 1, 1), 0)
