"""What real tools have written, exported and read back: no label of a picture or a box is lost."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fixtures.annotated_pictures import restore
from lensmith.config import ImportSettings
from lensmith.config.values import LabelFormat
from lensmith.data.annotations.load import load
from lensmith.data.import_annotations import import_annotations
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


def labels_of(given: MarkedPictures, form: str, has_people: bool) -> dict[str, object]:
    """Picture → part, group and labels, as far as the format has a place for them; pictures with a label only."""
    return {
        each.path: (each.part, each.group * (form == "label-studio"), sorted(each.marks if has_people else each.labels))
        for each in given.pictures if each.marks
    }  # fmt: skip


def has_people(given: MarkedPictures, form: str) -> bool:
    """Whether a format tells who gave which label: Label Studio of its users, CVAT where several labelled a picture."""
    if form == "label-studio":
        return all("@" in name or name.isdigit() for name in given.annotators())
    return form == "cvat" and any(len({mark.annotator for mark in each.marks}) > 1 for each in given.pictures)


@pytest.mark.parametrize("form", ["cvat", "label-studio", "coco"])
@pytest.mark.parametrize(
    "name",
    ["labels-cvat_project", "boxes-cvat_project", "cvat-task", "cvat-replicas", "boxes-coco_instances", *LABEL_STUDIO],
)
def test_nothing_that_is_a_label_is_lost(name: str, form: str, tmp_path: Path) -> None:
    source = source_of(name, tmp_path / "set")
    given = collect(source)
    is_told = has_people(given, form)
    wanted = labels_of(given, form, is_told)
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
    assert labels_of(again, form, is_told) == wanted
    assert {each.path for each in again.pictures if not each.marks} == unlabelled
    found = load(source)
    assert found is not None
    assert not found[1].missing


def test_crops_of_one_picture_are_its_boxes(tmp_path: Path) -> None:
    given = collect(source_of("boxes-cvat", tmp_path / "set"))
    assert given.has_boxes
    assert not given.groups()  # a crop's group is its picture, which says nothing more
    assert max(len(each.marks) for each in given.pictures) == 2


def test_unlabelled_pictures_beside_a_manifest_go_out_as_well(tmp_path: Path) -> None:
    source = source_of("labels-cvat_project", tmp_path / "set")
    import_annotations(ImportSettings(source=source, out=tmp_path / "m.csv"))
    given, direct = collect(tmp_path / "m.csv"), collect(source)
    assert len([picture for picture in given.pictures if not picture.marks]) == 2
    assert {(each.part, each.marks) for each in given.pictures} == {(each.part, each.marks) for each in direct.pictures}
    assert len(given.pictures) == len(direct.pictures)


def test_annotators_with_odd_names_have_a_file_each_for_cvat(tmp_path: Path) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    people = ("../up", "_up", "", "train", "Ä" * 200, "a<b>&")
    labels = [f"a.png,cat,{name}" for name in people]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,annotator", *labels]) + "\n", encoding="utf-8")
    done = export(collect(tmp_path / "set.csv"), "cvat", tmp_path / "out")
    files = [name for name in done.files if name.endswith(".xml")]
    assert len(files) == len(people)
    (tmp_path / "set.csv").unlink()
    for name in files:
        (tmp_path / "out" / name).rename(tmp_path / name)
    found = {mark.annotator for picture in collect(tmp_path).pictures for mark in picture.marks}
    assert found == {*people, "annotations"} - {""}


def test_boxes_of_several_annotators_are_one_box_in_coco_and_stay_with_their_annotators_elsewhere(
    tmp_path: Path,
) -> None:
    source = source_of("boxes-cvat", tmp_path / "set")
    (source / "train.xml").unlink()
    (source / "test.xml").rename(source / "anna.xml")
    moved = (source / "anna.xml").read_text(encoding="utf-8").replace('xtl="16.00"', 'xtl="17.00"')
    (source / "ben.xml").write_text(moved, encoding="utf-8")

    def boxes(form: LabelFormat) -> int:
        return sum(export(collect(source), form, tmp_path / form).labels.values())

    objects = boxes("coco")
    assert boxes("cvat") == boxes("label-studio") == objects + 1
