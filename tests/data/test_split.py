"""The split: every image in one part, close to the ratio, changed by nothing but the seed."""

import csv
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.config import SplitSettings
from lensmith.data.image_set import PARTS, ImageSet, Sample
from lensmith.data.scan import scan
from lensmith.data.split import Ratio, assign, prepare, split
from lensmith.errors import DataError, OutputError, SettingsError

sizes = st.lists(st.integers(1, 40), min_size=2, max_size=6)
shares = st.integers(0, 20)
ratios = st.tuples(st.integers(1, 20), shares, shares)
seeds = st.integers(0, 2**31)


def make(counts: list[int], shuffle: int | None = None) -> ImageSet:
    labels = tuple(f"class{index:02d}" for index in range(len(counts)))
    places = [(label, number) for label, count in enumerate(counts) for number in range(count)]
    samples = [Sample(f"{labels[label]}/{number:03d}.png", label) for label, number in places]
    if shuffle is not None:
        random.Random(shuffle).shuffle(samples)
    return ImageSet(Path("nowhere"), labels, tuple(samples))


def move(source: Path, to: Path, label: str, count: int) -> None:
    """Move the last images of a class to another part."""
    (to / label).mkdir(parents=True)
    for file in sorted((source / label).iterdir())[-count:]:
        file.rename(to / label / file.name)


def parts_of(images: ImageSet) -> dict[str, str | None]:
    return {sample.path: sample.part for sample in images.samples}


@given(sizes, ratios, seeds)
def test_each_class_is_divided_to_within_one_image_of_the_ratio(counts: list[int], ratio: Ratio, seed: int) -> None:
    before = make(counts)
    after = assign(before, ratio, seed)
    assert [replace(sample, part=None) for sample in after.samples] == list(before.samples)
    for row, count in zip(after.counts().values(), counts, strict=True):
        assert sum(row.values()) == count
        for part, share in zip(PARTS, ratio, strict=True):
            assert abs(row.get(part, 0) - count * share / sum(ratio)) < 1, part
            assert share > 0 or part not in row
        assert "train" in row
        assert "val" in row or count == 1 or ratio[1] < ratio[2] or ratio[1] == 0


@given(sizes, ratios, seeds)
def test_neither_the_order_of_the_files_nor_another_class_moves_an_image(
    counts: list[int], ratio: Ratio, seed: int
) -> None:
    alone, after = assign(make(counts), ratio, seed), assign(make([*counts, 7], shuffle=seed), ratio, seed)
    assert parts_of(alone).items() <= parts_of(after).items()


def test_another_seed_gives_another_split() -> None:
    images = make([30, 30])
    assert parts_of(assign(images, (5, 3, 2), 0)) == parts_of(assign(images, (5, 3, 2), 0))
    assert parts_of(assign(images, (5, 3, 2), 0)) != parts_of(assign(images, (5, 3, 2), 1))


@pytest.mark.parametrize(
    ("count", "ratio", "expected"),
    [
        (1, (5, 3, 2), (1, 0, 0)),
        (2, (5, 3, 2), (1, 1, 0)),
        (3, (5, 3, 2), (1, 1, 1)),
        (10, (5, 3, 2), (5, 3, 2)),
        (3, (8, 1, 1), (2, 1, 0)),
        (100, (0.7, 0.2, 0.1), (70, 20, 10)),
        (5, (8, 2, 0), (4, 1, 0)),
        (5, (1, 98, 1), (1, 4, 0)),
        (4, (1, 0, 0), (4, 0, 0)),
    ],
)
def test_small_classes_fill_training_first_then_empty_parts(
    count: int, ratio: Ratio, expected: tuple[int, int, int]
) -> None:
    row = assign(make([count, 2]), ratio, 0).counts()["class00"]
    assert tuple(row.get(part, 0) for part in PARTS) == expected


def test_notes_say_the_numbers_and_which_classes_go_without() -> None:
    notes = assign(make([10, 1, 2]), (5, 3, 2), 4).notes
    assert notes[0] == "Split 5:3:2 class by class with seed 4: 7 train, 4 val, 2 test."
    assert notes[1] == "Validation does not see these classes, which have too few images: class01."
    assert notes[2] == "The final evaluation does not see these classes, which have too few images: class01, class02."


@pytest.mark.parametrize("ratio", [(0, 5, 5), (0, 0, 0), (float("inf"), 1, 1)])
def test_a_ratio_without_training_is_refused(ratio: Ratio) -> None:
    with pytest.raises(SettingsError):
        assign(make([3, 3]), ratio, 0)


def test_an_unsplit_folder_and_a_train_folder_alone_are_prepared_by_the_ratio(colours: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "parts/train")
    for folder in (colours, tmp_path / "parts"):
        assert prepare(folder, (5, 3, 2), 0).counts()["red"] == {"train": 4, "val": 2, "test": 2}
    assert prepare(colours, (8, 0, 2), 0).counts()["red"] == {"train": 5, "val": 1, "test": 2}


def test_validation_comes_from_training_and_never_from_test(colours: Path, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    shutil.copytree(colours, root / "train")
    for label in ("red", "green", "blue"):
        move(root / "train", root / "test", label, 2)
    images = prepare(root, (5, 3, 2), 0)
    assert images.counts()["red"] == {"train": 5, "val": 1, "test": 2}
    assert all(sample.path.startswith("test/") for sample in images.part("test"))
    assert images.samples == tuple(sorted(images.samples, key=lambda sample: sample.path))
    assert "Test images are unchanged." in images.notes[1]


def test_parts_that_are_brought_stay(colours: Path, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    shutil.copytree(colours, root / "train")
    move(root / "train", root / "val", "red", 3)
    images = prepare(root, (5, 3, 2), 0)
    assert images.samples == scan(root).samples
    assert images.notes == (
        "Split that the data brings: 21 train, 3 val.",
        "Validation does not see these classes, which have too few images: blue, green.",
    )


def test_a_class_of_one_image_trains_and_a_set_of_such_classes_is_refused(colours: Path) -> None:
    for file in colours.glob("red/00[1-7].*"):
        file.unlink()
    images = prepare(colours, (5, 3, 2), 0)
    assert images.counts()["red"] == {"train": 1}
    assert any("red" in note for note in images.notes)
    for file in colours.glob("*/00[1-7].*"):
        file.unlink()
    with pytest.raises(DataError):
        prepare(colours, (5, 3, 2), 0)


def test_parts_without_training_are_refused(colours: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "parts/val")
    shutil.copytree(colours, tmp_path / "parts/test")
    with pytest.raises(DataError, match="val and test"):
        prepare(tmp_path / "parts", (5, 3, 2), 0)


def test_the_manifest_read_back_is_the_split_that_training_would_make(colours: Path) -> None:
    expected = prepare(colours, (5, 3, 2), 3)
    done = split(SplitSettings(folder=colours, seed=3))
    assert done.manifest == colours / "splits.csv"
    assert done.counts == {"train": 12, "val": 6, "test": 6}
    assert done.manifest.read_text().startswith("path,label,split\nblue/000.png,blue,")
    assert scan(colours).samples == expected.samples


def test_a_manifest_elsewhere_names_the_same_files(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/place/mine.csv"
    split(SplitSettings(folder=colours, out=out))
    expected = {f"../../colours/{path}": part for path, part in parts_of(prepare(colours, (5, 3, 2), 0)).items()}
    assert parts_of(scan(out)) == expected
    assert all(scan(out).file(sample).is_file() for sample in scan(out).samples)


def test_a_csv_without_splits_gets_a_manifest_beside_it(colours: Path) -> None:
    rows = (f"{sample.path},{sample.path[:3]}" for sample in scan(colours).samples)
    (colours / "labels.csv").write_text("path,label\n" + "\n".join(rows))
    done = split(SplitSettings(folder=colours / "labels.csv"))
    assert done.manifest == colours / "splits.csv"
    assert set(done.classes) == {"blu", "gre", "red"}


def test_an_older_manifest_is_extended_and_divided_anew_only_with_overwrite(colours: Path) -> None:
    assert split(SplitSettings(folder=colours)).written
    before = (colours / "splits.csv").stat().st_mtime_ns
    assert not split(SplitSettings(folder=colours)).written
    assert (colours / "splits.csv").stat().st_mtime_ns == before
    kept = split(SplitSettings(folder=colours, seed=1))
    assert not kept.written
    assert any("--overwrite" in note for note in kept.notes)
    assert split(SplitSettings(folder=colours, seed=1, overwrite=True)).written
    assert sorted(entry.name for entry in colours.iterdir()) == ["blue", "green", "red", "splits.csv"]
    shutil.copy(colours / "red/000.png", colours / "red/new.png")  # which the older manifest does not list
    assert sum(split(SplitSettings(folder=colours, overwrite=True)).counts.values()) == 25


def test_pictures_that_are_added_move_none_that_the_manifest_names(colours: Path) -> None:
    split(SplitSettings(folder=colours))
    before = parts_of(scan(colours))
    for number in range(10):
        for picture in range(8):
            Image.new("RGB", (40, 48), (200, number, picture)).save(colours / f"red/new{number}{picture}.png")
    done = split(SplitSettings(folder=colours))
    assert done.written
    assert before.items() <= parts_of(scan(colours)).items()
    assert done.classes["red"] == {"train": 44, "val": 26, "test": 18}
    assert any("New images" in note and ": 80;" in note for note in done.notes)
    assert not split(SplitSettings(folder=colours)).written


def test_other_columns_of_a_manifest_are_copied_and_what_it_contests_stays_contested(colours: Path) -> None:
    split(SplitSettings(folder=colours))
    file = colours / "splits.csv"
    rows = [f"{line.replace(',', ';')};anna;0,5" for line in file.read_text().splitlines()[1:]]
    part_of = {row.split(";")[0]: row.split(";")[2] for row in rows}
    more = [f"{path};{label};{part_of[path]};bert;0,9" for path, label in (
        ("blue/000.png", "blue"), ("blue/002.png", "red"), ("green/000.png", "red"),
    )]  # fmt: skip
    more.append(f"green/000.png;green;{part_of['green/000.png']};carl;")
    more.append("red/hand.png;blue;;dora;")  # without a split
    file.write_text("\n".join(["path;label;split;annotator;Sure (0-1)", *rows, *more]))
    shutil.copy(colours / "red/002.png", colours / "red/new.png")
    Image.new("RGB", (9, 9), (9, 9, 9)).save(colours / "red/hand.png")
    (colours / "fix.csv").write_text("path,label\nred/004.png,blue\n")
    done = split(SplitSettings(folder=colours, relabel=colours / "fix.csv"))
    assert [each.path for each in done.contested] == ["blue/002.png"]
    assert sum(done.counts.values()) == 25
    table = list(csv.reader(file.open(newline="")))
    assert table[0] == ["path", "label", "split", "annotator", "Sure (0-1)"]
    of = {path: [row[1:] for row in table if row[0] == path] for path in part_of}
    assert of["blue/000.png"] == [["blue", part_of["blue/000.png"], *who] for who in (["anna", "0,5"], ["bert", "0,9"])]
    assert [row[0] for row in of["blue/002.png"]] == ["blue", "red"]
    assert [row[0] for row in of["green/000.png"]] == ["green", "red", "green"]
    assert of["red/004.png"] == [["blue", part_of["red/004.png"], "", "0,5"]]  # anna did not say that
    assert [row for row in table if row[0] == "red/new.png"] == [["red/new.png", "red", part_of["red/002.png"], "", ""]]
    assert [[row[1], *row[3:]] for row in table if row[0] == "red/hand.png"] == [["red", "", ""]]
    text = file.read_text()
    assert not split(SplitSettings(folder=colours)).written
    assert file.read_text() == text
    assert {path: part for path, part in parts_of(scan(colours)).items() if path in part_of}.items() <= part_of.items()


def test_labels_and_groups_that_were_mended_in_the_manifest_hold(colours: Path) -> None:
    split(SplitSettings(folder=colours))
    table = (colours / "splits.csv").read_text().splitlines()
    mended = [f"{line},{'pair' if '/001' in line else ''}" for line in table[1:]]
    mended = [line.replace("blue/000.png,blue", "blue/000.png,red") for line in mended]
    (colours / "splits.csv").write_text("\n".join([f"{table[0]},group", *mended]))
    (colours / "green/000.png").unlink()
    shutil.copy(colours / "red/002.png", colours / "red/new.png")
    done = split(SplitSettings(folder=colours))
    assert (sum(done.classes["red"].values()), sum(done.classes["blue"].values())) == (10, 7)
    found = {sample.path: sample for sample in scan(colours).samples}
    assert found["red/new.png"].part == found["red/002.png"].part
    assert {path for path, sample in found.items() if sample.group == "pair"} == {
        f"{label}/001.{suffix}" for label, suffix in (("red", "jpg"), ("green", "jpg"), ("blue", "jpg"))
    }
    assert any("Labels of the older manifest that hold: 1" in note for note in done.notes)
    assert any("gone: 1" in note for note in done.notes)


def test_a_file_that_is_no_manifest_is_not_written_over(colours: Path) -> None:
    (colours / "splits.csv").write_text("path,label\nred/000.png,red\nblue/000.png,blue\n")
    with pytest.raises(OutputError, match="--overwrite"):
        split(SplitSettings(folder=colours))
    assert (colours / "splits.csv").read_text().startswith("path,label\nred")


def test_a_group_is_in_one_part_of_the_split_and_of_the_validation_that_training_takes(
    colours: Path, tmp_path: Path
) -> None:
    for folder, (label, numbers) in {
        "tom": ("red", (0, 1, 2)),
        "tim": ("red", (3, 4)),
        "joe": ("blue", (0, 5)),
    }.items():
        (colours / label / folder).mkdir()
        for number in numbers:
            file = next((colours / label).glob(f"{number:03d}.*"))
            file.rename(colours / label / folder / file.name)
    whole = prepare(colours, (5, 3, 2), 0, group="folder:2")
    shutil.copytree(colours, tmp_path / "parts/train")
    taken = prepare(tmp_path / "parts", (8, 0, 2), 0, group="folder:3")
    for images in (whole, taken):
        found = {
            name: {sample.part for sample in images.samples if sample.group == name} for name in ("tom", "tim", "joe")
        }
        assert all(len(parts) == 1 for parts in found.values())
        assert "val" in images.parts
    done = split(SplitSettings(folder=colours, group="folder:2"))
    assert done.manifest.read_text().startswith("path,label,split,group\n")
    assert scan(colours).samples == whole.samples  # the column brings the groups back
