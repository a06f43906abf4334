"""What real tools have written, exported and read back: no label of a picture or a box is lost."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fixtures.annotated_pictures import restore
from lensmith.data.annotations.load import load
from lensmith.data.label_export.collect import collect
from lensmith.data.label_export.export import export
from lensmith.data.label_export.marked_picture import MarkedPictures

FILES = Path(__file__).parents[1] / "annotations" / "files"
LABEL_STUDIO = ("choices", "people", "boxes")
NAMES = (
    "100% wing.jpg", "a b.jpg", "b1.jpg", "d(1).jpg", "sub/same.png", "sub/u 2.jpg", "sub2/same.png", "u1.jpg",
    "über.jpg", "中文.jpg",
)  # fmt: skip


def source_of(name: str, folder: Path) -> Path:
    """A folder with pictures and what CVAT, COCO or Label Studio has written of them."""
    if name not in LABEL_STUDIO:
        return restore(FILES / name, folder)
    for picture in NAMES:
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(folder / picture)
    shutil.copy(FILES / "label-studio" / f"{name}.json", folder)
    return folder


def labels_of(given: MarkedPictures, form: str) -> dict[str, object]:
    """Picture → part, group and labels, as far as the format has a place for them; pictures with a label only."""
    if form == "label-studio":
        return {each.path: (each.part, each.group, sorted(each.marks)) for each in given.pictures if each.marks}
    return {each.path: (each.part, sorted(each.labels)) for each in given.pictures if each.marks}


@pytest.mark.parametrize("form", ["cvat", "label-studio", "coco"])
@pytest.mark.parametrize("name", ["labels-cvat", "boxes-cvat", "boxes-coco_instances", *LABEL_STUDIO])
def test_nothing_that_is_a_label_is_lost(name: str, form: str, tmp_path: Path) -> None:
    source = source_of(name, tmp_path / "set")
    given = collect(source)
    wanted = labels_of(given, form)
    unlabelled = {each.path for each in given.pictures if not each.marks}
    assert len(wanted) >= 2
    done = export(given, form, tmp_path / "out")
    assert done.labelled == len(wanted)
    for file in [*source.glob("*.xml"), *source.glob("*.json")]:
        file.unlink()
    shutil.rmtree(source / "annotations", ignore_errors=True)
    for file in done.files:
        if not file.endswith(("labels.json", "config.xml", "predictions.json")):
            (source / file).parent.mkdir(exist_ok=True)
            shutil.copy(tmp_path / "out" / file, source / file)
    again = collect(source)
    assert labels_of(again, form) == wanted
    assert {each.path for each in again.pictures if not each.marks} == unlabelled
    found = load(source)
    assert found is not None
    assert not found[1].missing


def test_crops_of_one_picture_are_its_boxes(tmp_path: Path) -> None:
    given = collect(source_of("boxes-cvat", tmp_path / "set"))
    assert given.has_boxes
    assert not given.groups()  # a crop's group is its picture, which says nothing more
    assert max(len(each.marks) for each in given.pictures) == 2
