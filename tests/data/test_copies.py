"""Copies stay in one part of our own split, and the part of every other image stays where it was without them."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lensmith.config import SplitSettings
from lensmith.data.copies import first_of_equals
from lensmith.data.image_set import PARTS
from lensmith.data.scan import scan
from lensmith.data.split import prepare, split

AWKWARD = (
    "3\r.jpg", "4\n.jpg", "5\t.jpg", '6".jpg', "7\\x.jpg", "8 .jpg", "-9.jpg", "=10.jpg", ",11;.jpg", "'12'.jpg",
    " 13.jpg", "14#%?.jpg", "cafe\u0301 15.jpg", "\u200b16.jpg", "\U0001f600.jpg", f"{'x' * 240}.jpg",
)  # fmt: skip
"""Names of files that tables and shells trip over."""


def make(root: Path, classes: int = 2, images: int = 20) -> Path:
    for label in range(classes):
        for number in range(images):
            file = root / f"class{label}" / f"{number:02d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            save(file, label, number)
    return root


def save(file: Path, *grey: int) -> None:
    """Write an uncompressed image, so that all are of one size, of grey values of its own."""
    pixels = np.resize(np.array(grey, np.uint8), (80, 80))
    Image.fromarray(pixels).save(file, "BMP")


def parts_of(root: Path) -> dict[str, str | None]:
    return {sample.path: sample.part for sample in prepare(root, (5, 3, 2), 0).samples}


def test_copies_take_the_part_of_their_original_and_move_nothing_else(tmp_path: Path) -> None:
    before = parts_of(make(tmp_path))
    for number in range(20):
        shutil.copy(tmp_path / f"class0/{number:02d}.jpg", tmp_path / f"class0/{number:02d} (1).jpg")
    shutil.copy(tmp_path / "class0/00.jpg", tmp_path / "class1/wrong.jpg")
    (tmp_path / "class1/link.jpg").symlink_to(tmp_path / "class1/05.jpg")
    after = parts_of(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {after[f"class0/{number:02d} (1).jpg"] == after[f"class0/{number:02d}.jpg"] for number in range(20)} == {
        True
    }
    assert after["class1/wrong.jpg"] == after["class0/00.jpg"]
    assert after["class1/link.jpg"] == after["class1/05.jpg"]
    notes = prepare(tmp_path, (5, 3, 2), 0).notes
    assert any("content of another" in note and ": 22 " in note for note in notes)
    assert any("another class than their original: 1 (class1/wrong.jpg)" in note for note in notes)


def test_files_of_equal_size_or_beginning_are_no_copies(tmp_path: Path) -> None:
    make(tmp_path, images=3)
    for number, first in enumerate((1, 2, 1), 1):  # the top line, which BMP writes last
        save(tmp_path / f"class0/head{number}.jpg", first, *(number % 251 for number in range(6399)))
    assert first_of_equals(scan(tmp_path)) == {"class0/head3.jpg": "class0/head1.jpg"}


def test_files_of_equal_content_that_is_no_image_are_divided_like_others(tmp_path: Path) -> None:
    make(tmp_path, images=3)
    for number in range(3):
        (tmp_path / f"class0/broken{number}.jpg").write_bytes(b"broken")
    assert first_of_equals(scan(tmp_path)) == {}


def test_files_that_are_gone_are_copies_of_none(tmp_path: Path) -> None:
    images = scan(make(tmp_path, images=3))
    shutil.rmtree(tmp_path / "class0")
    assert first_of_equals(images) == {}


def test_awkward_names_come_back_from_the_manifest_each_one(tmp_path: Path) -> None:
    make(tmp_path, images=3)
    for number, name in enumerate(AWKWARD):
        save(tmp_path / "class1" / name, 200, number)
    before = scan(tmp_path)
    assert len(before.samples) == 6 + len(AWKWARD)
    for out in (tmp_path / "splits.csv", tmp_path / "elsewhere.csv"):
        done = split(SplitSettings(folder=tmp_path, out=out))
        after = scan(out)
        assert [sample.path for sample in after.samples] == [sample.path for sample in before.samples]
        assert sum(done.counts.values()) == len(before.samples)
        assert after.set_aside == ()


def test_pixels_with_other_metadata_are_copies_and_other_pixels_with_the_same_end_are_none(tmp_path: Path) -> None:
    make(tmp_path, images=3)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "edited"
    for name, parameters in (("photo.jpg", {}), ("photo edited.jpg", {"exif": exif}), ("photo.png", {})):
        Image.fromarray(noise).save(tmp_path / "class0" / name, **parameters)
    text = PngInfo()
    text.add_text("Comment", "edited")
    Image.fromarray(noise).save(tmp_path / "class1/photo with text.png", pnginfo=text)
    noise[:10] = 0  # the upper part, which BMP writes last
    for number in (1, 2):
        noise[-1] = number
        Image.fromarray(noise).save(tmp_path / f"class1/end{number}.bmp")
    assert first_of_equals(scan(tmp_path)) == {
        "class0/photo edited.jpg": "class0/photo.jpg",
        "class1/photo with text.png": "class0/photo.png",
    }


def test_of_a_split_that_the_data_brings_the_earliest_part_keeps_the_copies_and_they_are_named(tmp_path: Path) -> None:
    for part, images in (("train", 8), ("val", 4), ("test", 5)):
        for label in range(2):
            for number in range(images):
                (tmp_path / part / f"class{label}").mkdir(parents=True, exist_ok=True)
                save(tmp_path / part / f"class{label}/{number}.jpg", len(part), label, number)
    shutil.copy(tmp_path / "train/class0/1.jpg", tmp_path / "val/class0/copy.jpg")
    shutil.copy(tmp_path / "val/class0/2.jpg", tmp_path / "test/class0/copy.jpg")
    shutil.copy(tmp_path / "train/class1/3.jpg", tmp_path / "test/class0/wrong.jpg")
    shutil.copy(tmp_path / "train/class1/3.jpg", tmp_path / "train/class1/3 (1).jpg")
    found = prepare(tmp_path, (5, 3, 2), 0)
    assert {part: len(found.part(part)) for part in PARTS} == {"train": 17, "val": 8, "test": 10}
    assert found.set_aside == (
        ("test/class0/copy.jpg", "a copy of val/class0/2.jpg, in val"),
        ("test/class0/wrong.jpg", "a copy of train/class1/3.jpg, in train"),
        ("val/class0/copy.jpg", "a copy of train/class0/1.jpg, in train"),
    )
    assert len(found.warnings) == 1
    assert ": 3 (test/class0/copy.jpg is val/class0/2.jpg, " in found.warnings[0]
    assert any("another class than their original: 1 (test/class0/wrong.jpg)" in note for note in found.notes)
    done = split(SplitSettings(folder=tmp_path, out=tmp_path / "parts.csv"))
    assert done.counts == {"train": 17, "val": 8, "test": 10}
    assert done.warnings == found.warnings
