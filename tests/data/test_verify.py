"""Every file with something wrong is named with its reason, and no single file raises."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from lensmith.data.verify import FileFinding, PixelRange, check


def kinds(root: Path) -> dict[str, str]:
    return {finding.path: finding.kind for finding in check(root).findings}


def test_a_clean_set_has_counts_sizes_and_formats_and_no_findings(colours: Path) -> None:
    checked = check(colours)
    assert checked.images == checked.usable == 24
    assert checked.counts == {"blue": {"all": 8}, "green": {"all": 8}, "red": {"all": 8}}
    assert (checked.width, checked.height) == (PixelRange(48, 48, 48), PixelRange(40, 40, 40))
    assert checked.formats == {"PNG": 12, "JPEG": 12}
    assert checked.modes == {"RGB": 24}
    assert checked.warnings == ()
    result = json.loads(json.dumps(checked.as_dict()))
    assert (result["usable"], result["problems"], result["findings"]) == (24, 0, [])
    assert result["width"] == {"min": 48, "median": 48.0, "max": 48}


def test_every_damaged_file_is_named_with_its_reason_and_not_counted(colours: Path) -> None:
    whole = (colours / "red/001.jpg").read_bytes()
    (colours / "red/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (colours / "red/text.png").write_text("not a picture")
    (colours / "red/empty.png").touch()
    (colours / "blue/readme.txt").write_text("hello")
    checked = check(colours)
    assert [(finding.kind, finding.path) for finding in checked.findings] == [
        ("unreadable", "red/cut.jpg"),
        ("unreadable", "red/text.png"),
        ("empty", "red/empty.png"),
        ("set aside", "blue/readme.txt"),
    ]
    assert "truncated" in checked.findings[0].reason.lower()
    assert "no image format" in checked.findings[1].reason
    assert checked.usable == 24
    assert checked.counts["red"] == {"all": 8}


def test_formats_modes_and_upright_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    Image.new("L", (10, 20)).save(tmp_path / "a/grey.png")
    Image.new("CMYK", (30, 20)).save(tmp_path / "a/cmyk.jpg")
    Image.new("P", (10, 10)).save(tmp_path / "b/palette.gif")
    turned = Image.new("RGB", (80, 20), "red")
    turned.getexif()[0x0112] = 6  # lies on its side
    turned.save(tmp_path / "b/turned.jpg", exif=turned.getexif())
    checked = check(tmp_path)
    assert checked.modes == {"L": 1, "CMYK": 1, "P": 1, "RGB": 1}
    assert checked.formats == {"JPEG": 2, "PNG": 1, "GIF": 1}
    assert checked.width == PixelRange(10, 15.0, 30)
    assert checked.height == PixelRange(10, 20.0, 80)


def test_a_copy_under_another_class_is_a_label_conflict_and_names_both_places(colours: Path) -> None:
    shutil.copy(colours / "blue/000.png", colours / "red/blue.png")
    assert check(colours).findings == (
        FileFinding("red/blue.png", "label conflict", "'red' here; the same content as blue/000.png, which is 'blue'"),
    )


def test_a_copy_in_the_same_class_is_a_duplicate_until_parts_make_it_a_leak(colours: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(colours, parts / "train")
    shutil.copytree(colours, parts / "test")
    for file in (parts / "test").rglob("*.*g"):  # other pixels, so that only the planted copy is one
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    shutil.copy(parts / "train/red/000.png", parts / "train/red/again.png")
    assert kinds(parts) == {"train/red/again.png": "duplicate"}
    shutil.copy(parts / "train/green/000.png", parts / "test/green/leak.png")
    checked = check(parts)
    assert [(finding.kind, finding.path) for finding in checked.findings] == [
        ("leak", "train/green/000.png"), ("duplicate", "train/red/again.png"),
    ]  # fmt: skip
    assert checked.findings[0].reason == (
        "'green' in train here; the same content as test/green/leak.png, which is 'green' in test"
    )
    assert any("two parts" in warning for warning in checked.warnings)


def test_a_conflict_outweighs_the_leak_of_the_same_file(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(encoded, "PNG")
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8), (len(place), ord(place[-1]), ord(place[1]))).save(tmp_path / place / "own.png")
    for place in ("train/a", "test/a", "test/b"):
        (tmp_path / place / "same.png").write_bytes(encoded.getvalue())
    assert kinds(tmp_path) == {"test/b/same.png": "label conflict", "train/a/same.png": "label conflict"}


def test_small_unequal_and_missing_classes_are_warned_of(colours: Path, tmp_path: Path) -> None:
    for file in colours.glob("red/00[2-7].*"):
        file.unlink()
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 200)).save(colours / f"blue/{number + 100}.png")
    warnings = check(colours).warnings
    assert warnings[0].startswith("Fewer than 4 usable images: red.")
    assert warnings[1].startswith("Strong imbalance: blue has 28 usable images, red has 2.")
    shutil.copytree(colours, tmp_path / "parts/train")
    shutil.copytree(colours / "red", tmp_path / "parts/test/red")
    assert "No usable image in test: blue, green." in check(tmp_path / "parts").warnings


def test_a_set_of_which_no_image_is_usable_is_still_reported(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_text("no")
    checked = check(tmp_path)
    assert (checked.images, checked.usable, checked.problems) == (2, 0, 2)
    assert checked.width is None
