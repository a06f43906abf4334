"""Files of a real Label Studio, and what goes wrong in others (tests/data/annotations/files)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.pictures import Name, Pictures
from lensmith.data.annotations.reader import Area, Entry, Reading, Source

pytest.importorskip("ijson")

FILES = Path(__file__).parent / "files" / "label-studio"
NAMES = (
    "100% wing.jpg", "a b.jpg", "b1.jpg", "d(1).jpg", "sub/same.png", "sub/u 2.jpg", "sub2/same.png", "u1.jpg",
    "über.jpg", "中文.jpg",
)  # fmt: skip
KINDS = {"label-studio": ".json", "label-studio-min": "-min.json", "label-studio-csv": ".csv"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    return tmp_path


def entries_of(folder: Path, name: str = "") -> tuple[list[Entry], Reading]:
    source = Source(folder)
    found = detect(source)
    assert found is not None
    reader, look = found
    assert not name or reader.name == name
    reading = Reading([], [])
    return list(reader.read(source, look.files, reading)), reading


def labels_of(entries: list[Entry]) -> dict[str, list[str | None]]:
    labels: dict[str, list[str | None]] = {}
    for entry in sorted(entries, key=lambda each: (each.annotator, each.label or "")):
        labels.setdefault(entry.picture, []).append(entry.label)
    return labels


def write(folder: Path, tasks: Any) -> None:
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")


def task(image: str, *labels: str, control: str = "choice", **more: Any) -> dict[str, Any]:
    result = [{"from_name": control, "type": "choices", "value": {"choices": [label]}} for label in labels]
    return {"id": 1, "data": {"image": image}, "annotations": [{"completed_by": 1, "result": result, **more}]}


@pytest.mark.parametrize("kind", KINDS)
def test_uploads_are_found_under_their_own_names(folder: Path, kind: str) -> None:
    shutil.copy(FILES / f"choices{KINDS[kind]}", folder)
    entries, reading = entries_of(folder, kind)
    labels = labels_of(entries)
    assert labels.pop("same.png") == ["bird", "cat"]  # of two folders, which an upload loses
    open_tasks = {"über.jpg": [None], "中文.jpg": [None]}
    if kind != "label-studio":  # a skipped task is not in them
        del open_tasks["中文.jpg"]
    assert labels == {
        "100% wing.jpg": ["cat"], "a b.jpg": ["dog"], "b1.jpg": ["bird"], "d(1).jpg": ["鳥 & ü"],
        "sub/u 2.jpg": ["dog"], "u1.jpg": ["cat"], **open_tasks,
    }  # fmt: skip
    assert any("same.png" in warning for warning in reading.warnings)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_shares_and_a_turned_box_has_one_around_it(folder: Path, kind: str) -> None:
    shutil.copy(FILES / f"boxes{KINDS[kind]}", folder)
    entries, _ = entries_of(folder, kind)
    boxes = [(each.picture, each.label, each.area) for each in entries if each.area]
    assert boxes[:2] == [
        ("über.jpg", "cat", Area(0.1, 0.2, 0.4, 0.6, is_share=True)),
        ("über.jpg", "dog", Area(0.5, 0.5, 0.75, 0.75, is_share=True)),
    ]
    assert boxes[2][:2] == ("中文.jpg", "cat")
    # 30 % of 64 and 40 % of 48 pixels, turned by 90 degrees about the left top corner at (32, 9.6)
    assert boxes[2][2] == pytest.approx(((32 - 19.2) / 64, 9.6 / 48, 32 / 64, (9.6 + 19.2) / 48, True))
    assert {each.picture for each in entries if each.label is None} == {
        "100% wing.jpg", "a b.jpg", "b1.jpg", "d(1).jpg", "u1.jpg",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_two_annotators_stay_two(folder: Path, kind: str) -> None:
    shutil.copy(FILES / f"people{KINDS[kind]}", folder)
    entries, _ = entries_of(folder, kind)
    assert labels_of(entries) == {
        "a b.jpg": ["cat", "cat"], "sub/same.png": ["cat", "dog"], "sub2/same.png": ["dog", "dog"],
        "中文.jpg": ["cat", "dog"], "100% wing.jpg": [None],
    }  # fmt: skip
    assert len({each.annotator for each in entries if each.label}) == 2


def test_a_single_task_is_a_file_of_one(folder: Path) -> None:
    write(folder, task("b1.jpg", "cat"))
    assert entries_of(folder)[0] == [Entry("b1.jpg", "cat", annotator="1")]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("/data/local-files/?d=photos%2Fsub%2Fu%202.jpg", "sub/u 2.jpg"),
        ("s3://bucket/photos/sub/u 2.jpg", "sub/u 2.jpg"),
        ("https://host/x/%C3%BCber.jpg?X-Amz-Date=1", "über.jpg"),
        ("/tasks/7/resolve/?fileuri=czM6Ly9iL3Bob3Rvcy9iMS5qcGc=", "b1.jpg"),
        ("/data/upload/3/0123abcd-a_b.jpg", "a b.jpg"),
        ("100% wing.jpg", "100% wing.jpg"),
        ("/data/local-files/?d=../../elsewhere/b1.jpg", "../../elsewhere/b1.jpg"),  # not found, and so refused later
    ],
)
def test_addresses(folder: Path, image: str, found: str) -> None:
    write(folder, [task(image, "cat")])
    assert [entry.picture for entry in entries_of(folder)[0]] == [found]


def test_a_deleted_picture_is_not_taken_for_a_namesake(folder: Path) -> None:
    shutil.copy(folder / "b1.jpg", folder / "gone.jpg")
    write(folder, [task(f"s3://b/photos/{name}", "cat") for name in ("sub/u 2.jpg", "sub/same.png", "sub/gone.jpg")])
    assert [entry.picture for entry in entries_of(folder)[0]] == ["sub/u 2.jpg", "sub/same.png", "photos/sub/gone.jpg"]


def test_answers_without_a_class_are_no_label(folder: Path) -> None:
    empty = {
        "id": 4,
        "data": {"image": "u1.jpg"},
        "annotations": [{"completed_by": 2, "result": [{"value": {"choices": []}}]}],
    }
    write(
        folder,
        [
            task("b1.jpg", "cat", was_cancelled=True),
            empty,
            {"id": 5, "data": {"text": "no picture"}},
            7,
            task("a b.jpg", "ü"),
        ],
    )
    entries, reading = entries_of(folder)
    assert labels_of(entries) == {"b1.jpg": [None], "u1.jpg": [None], "a b.jpg": ["ü"]}
    assert any("2" in warning and "without the address" in warning for warning in reading.warnings)


def test_annotators_as_objects(folder: Path) -> None:
    write(folder, [task("b1.jpg", "cat", completed_by={"id": 3, "email": "ann@example.org"})])
    assert entries_of(folder)[0][0].annotator == "ann@example.org"


def test_of_two_controls_for_the_whole_picture_the_user_decides(folder: Path) -> None:
    both = task("b1.jpg", "cat", control="animal")
    both["annotations"][0]["result"] += task("b1.jpg", "sharp", control="quality")["annotations"][0]["result"]
    write(folder, [both, task("u1.jpg", "dog", control="animal")])
    entries, _ = entries_of(folder)
    assert {entry.label for entry in entries} == {"picture"}
    assert [entry.attributes for entry in entries] == [
        (("animal", "cat"),), (("quality", "sharp"),), (("animal", "dog"),),
    ]  # fmt: skip


def test_other_exports_of_label_studio_name_pictures_by_addresses(folder: Path) -> None:
    pictures = Pictures(folder)
    names = {
        "/data/local-files/?d=photos/a%20b.jpg": "a b.jpg",  # COCO of the SDK
        "labels/%C3%BCber": "über.jpg",  # YOLO of the SDK
        "images/50d93e20-b1.jpg": "b1.jpg",  # COCO of uploads
        f"../data/{folder.name}/sub/u 2.jpg": "sub/u 2.jpg",  # COCO of a local storage
    }
    wanted = {Name((name,), ""): path for name, path in names.items()}
    found = pictures.find(wanted)
    assert found | pictures.find_addresses(name for name in wanted if name not in found) == wanted


def test_parts_and_groups_in_a_table_are_no_controls(folder: Path) -> None:
    (folder / "a.csv").write_text(
        "annotation_id,annotator,animal,group,id,image,lead_time,split\n"
        "1,7,cat,g1,1,/data/local-files/?d=p/b1.jpg,2.5,train\n"
        ",,,,2,/data/local-files/?d=p/u1.jpg,,train\n"
    )
    assert entries_of(folder, "label-studio-csv")[0] == [
        Entry("b1.jpg", "cat", subset="train", annotator="7", group="g1"), Entry("u1.jpg", None, subset="train"),
    ]  # fmt: skip
