"""Each format as it is written, from manifests and plain folders."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lensmith.data.label_export.collect import collect
from lensmith.data.label_export.export import LabelExport, export
from lensmith.data.label_export.marked_picture import Mark
from lensmith.data.scan import scan
from lensmith.errors import DataError, OutputError, SettingsError

ROWS = (
    ("a b.jpg", "cat", "train", "g1", "ann@example.org"),
    ("a b.jpg", "cat", "train", "g1", "bob"),
    ("sub/same.png", "鳥 & <ü>", "train", "", "7"),
    ("sub2/same.png", "cat", "test", "", ""),
    ("two.jpg", "cat", "test", "", "ann@example.org"),
    ("two.jpg", "鳥 & <ü>", "test", "", "bob"),
    ("100% open.jpg", "", "", "", ""),
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for path, *_ in ROWS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / path)
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split", "group", "annotator"), *ROWS])
    return root / "labels.csv"


def made(manifest: Path, form: Any, out: Path, **more: Any) -> LabelExport:
    return export(collect(manifest), form, out, **more)


def predict(paths: Any) -> Any:
    """An answer for each picture but `two.jpg`, which cannot be read."""
    return (None if path.name == "two.jpg" else Mark("dog", score=0.75, model="m 1") for path in paths)


def test_label_studio_has_a_task_for_each_picture(manifest: Path, tmp_path: Path) -> None:
    done = made(manifest, "label-studio", tmp_path / "out", predict=predict, classes=["dog"])
    tasks = {task["data"]["image"]: task for task in json.loads((tmp_path / "out" / "tasks.json").read_text("utf-8"))}
    assert set(tasks) == {
        f"/data/local-files/?d=photos/{name}"
        for name in ("a%20b.jpg", "sub/same.png", "sub2/same.png", "two.jpg", "100%25%20open.jpg")
    }
    first = tasks["/data/local-files/?d=photos/a%20b.jpg"]
    assert first["data"] | {"image": ""} == {"image": "", "split": "train", "group": "g1"}
    assert [each.get("completed_by") for each in first["annotations"]] == [{"email": "ann@example.org"}, None]
    assert [each["result"][0]["value"] for each in first["annotations"]] == [{"choices": ["cat"]}] * 2
    assert first["predictions"] == [
        {
            "model_version": "m 1", "score": 0.75,
            "result": [{"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": ["dog"]}}],
        }
    ]  # fmt: skip
    assert tasks["/data/local-files/?d=photos/sub/same.png"]["annotations"][0]["completed_by"] == 7
    unlabelled = tasks["/data/local-files/?d=photos/100%25%20open.jpg"]
    assert unlabelled["annotations"] == []
    assert len(unlabelled["predictions"]) == 1
    assert "predictions" not in tasks["/data/local-files/?d=photos/two.jpg"]
    config = ET.parse(tmp_path / "out" / "labeling-config.xml").getroot()
    assert [each.get("value") for each in config.iter("Choice")] == ["cat", "dog", "鳥 & <ü>"]
    assert (done.pictures, done.labelled, done.predicted) == (5, 4, 4)
    assert any(
        "names of annotators that are no e-mail address and no user's number (1)" in note for note in done.notes
    )  # bob has no address


def test_cvat_has_tags_of_people_and_of_the_model_for_open_pictures(manifest: Path, tmp_path: Path) -> None:
    done = made(manifest, "cvat", tmp_path / "out", predict=predict, classes=["dog"])
    tags: dict[str, set[tuple[str, str]]] = {}
    for file in (tmp_path / "out").glob("annotations*.xml"):  # one for each annotator, since they share a picture
        images = {each.attrib["name"]: each for each in ET.parse(file).getroot().iter("image")}
        for name, each in images.items():
            tags.setdefault(name, set()).update((tag.attrib["label"], tag.attrib["source"]) for tag in each)
    assert tags == {
        "a b.jpg": {("cat", "manual")}, "sub/same.png": {("鳥 & <ü>", "manual")}, "sub2/same.png": {("cat", "manual")},
        "two.jpg": {("cat", "manual"), ("鳥 & <ü>", "manual")}, "100% open.jpg": {("dog", "auto")},
    }  # fmt: skip
    assert (images["a b.jpg"].get("width"), images["a b.jpg"].get("height")) == ("40", "20")
    assert images["two.jpg"].get("subset") == "test"
    labels = json.loads((tmp_path / "out" / "labels.json").read_text("utf-8"))
    assert [each["name"] for each in labels] == ["cat", "dog", "鳥 & <ü>"]
    assert any("groups (1), answers of the model for pictures that have a label (3)" in note for note in done.notes)


def test_coco_has_a_file_for_each_part_and_the_answers_apart(manifest: Path, tmp_path: Path) -> None:
    made(manifest, "coco", tmp_path / "out", predict=predict, classes=["dog"])
    content = {
        part: json.loads((tmp_path / "out" / "annotations" / f"labels_{part}.json").read_text("utf-8"))
        for part in ("train", "test", "default")
    }
    assert [len(each["annotations"]) for each in content.values()] == [2, 3, 0]
    names = {each["id"]: each["file_name"] for part in content.values() for each in part["images"]}
    assert len(names) == 5
    answers = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    assert {names[each["image_id"]]: each["score"] for each in answers} == dict.fromkeys(
        ("a b.jpg", "sub/same.png", "sub2/same.png", "100% open.jpg"), 0.75
    )


def test_imagenet_folders_hold_the_pictures_themselves(manifest: Path, tmp_path: Path) -> None:
    rows = [row for row in ROWS if row[0] != "two.jpg"]
    with manifest.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *(row[:2] for row in rows if row[4] != "bob")])
    done = made(manifest, "imagenet", tmp_path / "out")
    found = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.*")}
    assert found == {"cat/a b.jpg", "cat/same.png", "鳥 & <ü>/same.png", "no_label/100% open.jpg"}
    assert (tmp_path / "out/cat/a b.jpg").samefile(manifest.parent / "a b.jpg")
    images = scan(tmp_path / "out")
    assert [images.labels[sample.label] for sample in images.samples] == ["cat", "cat", "鳥 & <ü>"]
    assert images.unlabelled == ("no_label/100% open.jpg",)
    assert done.files == []


def test_imagenet_says_what_it_does_not_hold(manifest: Path, tmp_path: Path) -> None:
    notes = " ".join(made(manifest, "imagenet", tmp_path / "out").notes)
    assert "pictures with several classes (1)" in notes
    assert "pictures without a part, since others have one (1)" in notes
    assert not list((tmp_path / "out").rglob("two.jpg"))


def test_crops_become_boxes_and_of_an_imagenet_folder_pictures(manifest: Path, tmp_path: Path) -> None:
    manifest.write_text(
        "path,label\na b.jpg#xywh=10,5,20,10,cat\n".replace("a b.jpg#xywh=10,5,20,10", '"a b.jpg#xywh=10,5,20,10"')
    )
    made(manifest, "label-studio", tmp_path / "ls")
    task = json.loads((tmp_path / "ls" / "tasks.json").read_text("utf-8"))[0]
    (result,) = task["annotations"][0]["result"]
    box = {key: result["value"][key] for key in ("x", "y", "width", "height")}
    assert box == {"x": 25, "y": 25, "width": 50, "height": 50}
    assert (result["original_width"], result["original_height"]) == (40, 20)
    made(manifest, "imagenet", tmp_path / "folders")
    (crop,) = (tmp_path / "folders" / "cat").iterdir()
    with Image.open(crop) as picture:
        assert picture.size == (20, 10)


def test_a_plain_folder_is_exported_to_be_labelled(manifest: Path, tmp_path: Path) -> None:
    manifest.unlink()
    done = made(manifest.parent, "label-studio", tmp_path / "out")
    assert (done.pictures, done.labelled, done.labels) == (5, 0, {})
    assert any("No class is known" in note for note in done.notes)


def test_a_damaged_picture_is_left_out_by_name(manifest: Path, tmp_path: Path) -> None:
    (manifest.parent / "a b.jpg").write_bytes(b"not a picture")
    done = made(manifest, "coco", tmp_path / "out")
    assert [path for path, _ in done.set_aside] == ["a b.jpg"]
    assert done.pictures == 4


def test_nothing_is_written_over_a_folder(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        made(manifest, "cvat", manifest.parent)
    with pytest.raises(OutputError):
        made(manifest, "cvat", tmp_path / "labels.xml")


def test_an_answer_is_no_label(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        made(manifest, "imagenet", tmp_path / "out", predict=predict)
    assert not (tmp_path / "out").exists()


def test_a_class_that_is_no_folder_leaves_nothing_behind(manifest: Path, tmp_path: Path) -> None:
    manifest.write_text("path,label\na b.jpg,cat/dog\ntwo.jpg,cat\n")
    with pytest.raises(OutputError) as caught:
        made(manifest, "imagenet", tmp_path / "out")
    assert "cat/dog" in caught.value.arrived
    assert [each.name for each in tmp_path.iterdir()] == ["photos"]


def test_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        collect(tmp_path)
    with pytest.raises(DataError):
        collect(tmp_path / "missing")


def test_a_work_list_names_pictures_of_other_folders(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    work = tmp_path / "lists" / "next.csv"
    work.write_text("path,suggested,score\n../photos/two.jpg,cat,0.4\n../photos/sub/same.png,,\n../photos/gone.jpg,,\n")
    given = collect(work)
    assert given.root == manifest.parent
    assert [picture.path for picture in given.pictures] == ["sub/same.png", "two.jpg"]
    assert given.aside == [("../photos/gone.jpg", "there is no such file")]
