"""Groups by column, folder, pattern and copies, what is said about them, and groups that a split parts."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lensmith.config import SplitSettings
from lensmith.data.groups import across_parts, group_leaks, leak_warning, series_hint, with_groups
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.scan import scan
from lensmith.data.verify import check
from lensmith.errors import DataError, SettingsError


def images(*paths: str, root: str = "nowhere") -> ImageSet:
    """A set of classes `cat` and `dog`, by the first folder of each path."""
    return ImageSet(Path(root), ("cat", "dog"), tuple(Sample(path, int(path.startswith("dog"))) for path in paths))


def groups(found: ImageSet) -> list[str]:
    return [sample.group for sample in found.samples]


def test_a_folder_is_a_group_by_its_level_and_its_name_across_classes() -> None:
    found = with_groups(
        images("cat/tom/1.jpg", "cat/tom/2.jpg", "cat/3.jpg", "dog/rex/1.jpg", "dog/tom/1.jpg"), "folder:2"
    )
    assert groups(found) == ["tom", "tom", "", "rex", "tom"]
    assert found.notes == (
        "Groups, whose images do not part: 2, the largest of 3 images (tom); with images of several classes: 1; "
        "images in no group, each by itself: 1.",
    )


def test_a_pattern_is_searched_in_the_name_and_with_a_slash_in_the_path() -> None:
    some = images(
        "cat/P7_left_01.jpg", "cat/P7_left_02.jpg", "cat/x.jpg", "dog/a/P9_1.png", "dog/b/P9_2.jpg#xywh=1,2,3,4"
    )
    assert groups(with_groups(some, r"pattern:(.*)_\d+")) == ["P7_left", "P7_left", "", "P9", "P9"]
    assert groups(with_groups(some, r"pattern:^(P\d+)")) == ["P7", "P7", "", "P9", "P9"]
    assert groups(with_groups(some, r"pattern:/(\w)/")) == ["", "", "", "a", "b"]


def test_a_column_holds_whatever_the_setting_says() -> None:
    some = images("cat/tom/1.jpg", "cat/tim/2.jpg", "dog/rex/1.jpg")
    some = replace(some, samples=(replace(some.samples[0], group="mine"), *some.samples[1:]))
    assert groups(with_groups(some, "folder:2")) == ["mine", "tim", "rex"]
    assert groups(with_groups(some, "none")) == ["mine", "", ""]


def test_copies_are_groups_of_auto(colours: Path) -> None:
    shutil.copy(colours / "red/000.png", colours / "blue/copy.png")
    (colours / "red/again.png").symlink_to(colours / "red/000.png")
    found = {sample.path: sample.group for sample in with_groups(scan(colours), "auto").samples if sample.group}
    assert found == dict.fromkeys(("blue/copy.png", "red/000.png", "red/again.png"), "red/000.png")


def test_auto_joins_the_groups_of_copies_and_their_names_hold(colours: Path) -> None:
    shutil.copy(colours / "red/000.png", colours / "blue/c.png")  # of a shorter path than the one that has the group
    shutil.copy(colours / "red/002.png", colours / "green/c.png")
    given = {"red/000.png": "one", "red/002.png": "two", "green/c.png": "three", "green/006.png": "three"}
    some = scan(colours)
    some = replace(some, samples=tuple(replace(s, group=given.get(s.path, "")) for s in some.samples))
    found = {sample.path: sample.group for sample in with_groups(some, "auto").samples if sample.group}
    assert found == {
        "red/000.png": "one", "blue/c.png": "one", "red/002.png": "three", "green/c.png": "three",
        "green/006.png": "three",
    }  # fmt: skip


def test_a_crop_without_a_group_has_that_of_its_picture() -> None:
    some = images(
        "cat/a.jpg", "cat/a.jpg#xywh=0,0,4,4", "dog/b.jpg#xywh=0,0,4,4", "dog/b.jpg#xywh=4,0,4,4", "dog/c.jpg"
    )
    some = replace(some, samples=(*some.samples[:3], replace(some.samples[3], group="P7"), some.samples[4]))
    assert groups(with_groups(some, "none")) == ["cat/a.jpg", "cat/a.jpg", "P7", "P7", ""]


@pytest.mark.parametrize("setting", ["folder:3", r"pattern:^(frame)_"])
def test_a_setting_that_finds_no_group_says_what_is_there(setting: str) -> None:
    with pytest.raises(DataError, match=r"cat/tom/1.jpg|1.jpg"):
        with_groups(images("cat/tom/1.jpg", "dog/rex/1.jpg"), setting)


def test_groups_that_are_the_classes_are_refused() -> None:
    with pytest.raises(DataError, match="Each class is one single group"):
        with_groups(images("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"), "folder:1")


@pytest.mark.parametrize(
    "value",
    ["folder", "folder:0", "folder:x", "pattern:", "pattern:(", "pattern:(a)(b)", "pattern:abc", "groups", "", 3],
)
def test_a_setting_of_another_form_is_refused(value: object) -> None:
    with pytest.raises((SettingsError, ValueError)):
        SplitSettings.resolve({"folder": Path("x"), "group": value})


def parted() -> ImageSet:
    some = with_groups(
        images("cat/tom/1.jpg", "cat/tom/2.jpg", "cat/tim/1.jpg", "dog/rex/1.jpg", "dog/rex/2.jpg"), "folder:2"
    )
    parts = ("train", "test", "train", "val", "val")
    return replace(some, samples=tuple(replace(s, part=p) for s, p in zip(some.samples, parts, strict=True)))  # type: ignore[arg-type]


def test_groups_across_parts_are_named_as_leakage() -> None:
    assert across_parts(parted()) == {"tom": ("train", "test")}
    assert group_leaks(parted()) == [("cat/tom/2.jpg", "'cat' in test; its group is also in train: tom")]
    assert "tom in train and test" in leak_warning(parted())[0]


def test_the_check_names_groups_that_the_own_split_parts(colours: Path, tmp_path: Path) -> None:
    for part, label in (("train", "red"), ("train", "blue"), ("test", "red"), ("test", "blue")):
        shutil.copytree(colours / label, tmp_path / "parts" / part / label / f"{label}-walk")
        for file in (tmp_path / "parts" / part / label).rglob("*.*"):
            Image.new("RGB", (8, 8), (int(file.stem), len(part), len(label))).save(file.with_suffix(".png"))
    found = check(tmp_path / "parts", group="folder:3")
    assert [finding.reason for finding in found.findings if "group" in finding.reason] == [
        "'blue' in test; its group is also in train: blue-walk",
        "'red' in test; its group is also in train: red-walk",
    ]


def test_numbered_series_get_a_hint_and_merely_numbered_files_none() -> None:
    series = images(
        *(f"{label}/{name}_{n:03d}.jpg" for label in ("cat", "dog") for name in ("a", "b") for n in range(4))
    )
    assert "4 numbered series (cat/a_…, cat/b_…" in series_hint(series)[0]
    assert series_hint(with_groups(series, r"pattern:(.*/.*\D)\d+$")) == []
    assert series_hint(images(*(f"{label}/img_{n:03d}.jpg" for label in ("cat", "dog") for n in range(9)))) == []
    assert series_hint(images(*(f"{label}/{n:03d}.jpg" for label in ("cat", "dog") for n in range(9)))) == []
