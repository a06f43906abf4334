"""Which folders are parts and which are classes: read from names and content, and asked where both make sense."""

from pathlib import Path

import pytest

from lensmith.config.values import Layout
from lensmith.data.layout import Arrangement, arrange
from lensmith.errors import DataError


def read(folders: str, layout: Layout = "auto") -> Arrangement:
    """The reading of folders, separated by bars, with an image in each; one that ends with * holds images directly."""
    paths = [f"{folder.strip(' *')}/{number}.jpg" for number, folder in enumerate(folders.split("|"))]
    return arrange(paths, Path("photos"), layout)


def parts(found: Arrangement) -> dict[str, set[str | None]]:
    """Part → class folders."""
    return {str(part): {label for _, label, each in found.rows if each == part} for _, _, part in found.rows}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("training_set", "validation_set", "test_set"),
        ("seg_train/seg_train", "seg_dev/seg_dev", "seg_test/seg_test"),
        ("train_images", "val_images", "test_images"),
        ("train", "dev", "eval"),
        ("Training", "Validation", "Testing"),
        ("Train Set", "Valid Set", "Hold-Out Set"),
        ("TRAIN", "VAL", "TEST"),
        ("TrainSet", "DevSet", "TestSet"),
        ("trainset", "valset", "testdata"),
        ("train2017", "val2017", "test2017"),
        ("01_train", "02_val", "03_test"),
        ("flowers_train", "flowers_val", "flowers_test"),
        ("train/images", "val/images", "test/images"),
        ("Trainingsdaten", "Validierungsdaten", "Testdaten"),
        ("训练集", "验证集", "测试集"),
    ],
)
def test_names_of_parts_are_no_closed_list(train: str, val: str, test: str) -> None:
    found = read("|".join(f"{part}/{label}" for part in (train, val, test) for label in ("cats", "dogs")))
    assert parts(found) == {part: {"cats", "dogs"} for part in ("train", "val", "test")}
    assert found.aside == found.warnings == []


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("train/a|train/b|eval/a|test/a", {"train": {"a", "b"}, "val": {"a"}, "test": {"a"}}),
        ("train/a|train/b|test/a", {"train": {"a", "b"}, "test": {"a"}}),  # a class without test images
        ("train/A|train/b|test/a|test/c", {"train": {"A", "b"}, "test": {"a", "c"}}),
        ("val/a|val/b", {"val": {"a", "b"}}),
        ("train/a|train/b|train2/a", {"train": {"a", "b"}}),
        ("trainval/a|trainval/b|test/a", {"train": {"a", "b"}, "test": {"a"}}),
        ("cat/train|cat/val|dog/train|dog/test", {"train": {"cat", "dog"}, "val": {"cat"}, "test": {"dog"}}),
        ("train/train|train/test|bus/train|bus/test", {"train": {"train", "bus"}, "test": {"train", "bus"}}),
        ("cat/cat_train|cat/cat_val|dog/dog_train|dog/dog_val", {"train": {"cat", "dog"}, "val": {"cat", "dog"}}),
    ],
)
def test_parts_need_not_hold_every_class_and_may_lie_within_the_classes(
    folders: str, expected: dict[str, set[str | None]]
) -> None:
    assert parts(read(folders)) == expected


@pytest.mark.parametrize(
    "folders",
    [
        "train*|bus*|test*",  # toys
        "val*|cat*|dog*",
        "train_station/day|train_station/night|airport*|harbour*",
        "steam train*|diesel train*|test tube*",
        "cat/monday|cat/tuesday|dog/wednesday|dog/thursday",
        "cat/images|dog/images",
        "robin/male|robin/female|owl*|hawk*|crow*|kite*",
    ],
)
def test_classes_may_be_named_like_parts_and_hold_folders(folders: str) -> None:
    names = {folder.strip(" *").split("/")[0] for folder in folders.split("|")}
    assert parts(read(folders)) == {"None": names}


@pytest.mark.parametrize(
    "folders",
    [
        "fold1/a|fold1/b|fold2/a|fold2/b",
        "1/7|1/8|2/7|2/8",
        "robin/male|robin/female|owl/male|owl/female",
        "COVID/images|COVID/masks|Normal/images|Normal/masks",
        "train/red|train/blue|bus/red|bus/blue",
        "train/steam|train/diesel|bus/single|bus/double",
        "train/a|train/b|query/a|query/b",
        "train/a|train/b|test/c|test/d",
        "train*|test*",
        "train/train*|test1/test1*",
        "trainA*|trainB*|testA*|testB*",
        "val/x|cat*|dog*",
        "train*|val/a|val/b",
        "batch1/cat|batch1/dog|batch2/dog|batch2/bird",
        "site1/cat|site1/dog|site2/cat",
        "fold1*|fold1/a|fold1/b|fold2/a|fold2/b",  # a preview beside the classes
        "train_images*|test_images*|unlabeled_images*",
        "train*|test*|unlabelled*",
        "images/apple_pie|images/bread|meta*",
        "cat/train|cat/test|dog*",  # parts in one class alone
        "cat/train|cat/test|cat*|dog/train|dog/test",
        "cats_train*|cats_test*|dogs_train*|dogs_test*",
        "patient1/benign|patient2/benign|patient3/malignant|patient4/malignant",
        "cat*|unlabeled*",
        "cells/Parasitized|cells/Uninfected|parasitized*|uninfected*",  # a set and its copy within it
        "simpsons/bart|simpsons/lisa|kaggle_simpson_testset*",
    ],
)
def test_what_can_be_read_both_ways_is_asked_and_the_layout_decides(folders: str) -> None:
    with pytest.raises(DataError) as asked:
        read(folders)
    names = {folder.strip(" *").split("/")[0] for folder in folders.split("|")}
    assert all(repr(name) in asked.value.arrived for name in names)
    assert "--layout parts or --layout classes" in asked.value.remedy
    assert parts(read(folders, "classes")) == {"None": names}
    assert not names & {label for _, label, _ in read(folders, "parts").rows} - {"train"}


def test_parts_of_classes_that_are_named_like_parts_are_asked() -> None:
    folders = "train/train|train/test|test/train|test/test"
    with pytest.raises(DataError):
        read(folders)
    assert parts(read(folders, "parts")) == {"train": {"train", "test"}, "test": {"train", "test"}}
    assert parts(read(folders, "classes")) == {"None": {"train", "test"}}


def test_folders_without_the_name_of_a_part_are_put_together_where_they_are_said_to_be_parts() -> None:
    found = read("fold1/a|fold1/b|fold2/a|fold2/b", "parts")
    assert parts(found) == {"None": {"a", "b"}}
    assert "'fold1', 'fold2'" in found.warnings[0]


@pytest.mark.parametrize(
    ("folders", "left_out"),
    [
        ("train/a|train/b|test*", "test/2.jpg"),  # as from Kaggle
        ("train/a|train/b|test/unknown", "test/unknown/2.jpg"),
        ("seg_train/a|seg_train/b|seg_test/a|seg_pred/seg_pred*", "seg_pred/seg_pred/3.jpg"),
        ("train/a|train/b|test/a|extra/a", "extra/a/3.jpg"),
        ("train/a|train/b|test/a|loose*", "loose/3.jpg"),
        ("a*|b*|unlabeled*", "unlabeled/2.jpg"),
        ("a*|b*|no_label*", "no_label/2.jpg"),  # as from CVAT
        ("a*|b*|test_images*", "test_images/2.jpg"),
        ("yes*|no*|pred*", "pred/2.jpg"),
    ],
)
def test_unlabelled_images_and_folders_beside_parts_are_left_out_with_a_warning(folders: str, left_out: str) -> None:
    found = read(folders)
    assert [path for path, _ in found.aside] == [left_out]
    assert repr(left_out.split("/", maxsplit=1)[0]) in found.warnings[0]
    assert ": 1:" in found.warnings[0]
