"""What can be reviewed, and what is refused in one paragraph."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lensmith.curation.reviewing.items import content_stamp
from lensmith.curation.reviewing.sources import open_source
from lensmith.errors import DataError
from lensmith.feedback.storage import Upload, store


def test_an_image_folder(photos: Path) -> None:
    source = open_source(photos)
    assert (source.kind, source.labels, len(source.items)) == ("set", ("blue", "green", "red"), 9)
    assert (source.items[0].path, source.items[0].label) == ("blue/0.png", "blue")


def test_pictures_without_a_label(photos: Path) -> None:
    for found in (open_source(photos / "red"), open_source(photos, ignore_labels=True)):
        assert found.kind == "new"
        assert found.labels == ()
        assert {item.label for item in found.items} == {""}
    assert len(open_source(photos, ignore_labels=True).items) == 9
    assert open_source(photos / "red", ["red", "blue"]).labels == ("red", "blue")


def test_a_work_list_keeps_its_order(photos: Path) -> None:
    file = photos.parent / "suspects.csv"
    file.write_text(
        "path,label,suggested,score,reason\n"
        "photos/red/1.png,red,green,0.97,unlike its class\n"
        "photos/green/0.png,green,blue,nan,\n"
        "photos/green/9.png,green,blue,0.5,\n"
        "./photos/red/1.png,red,green,0.97,\n"
    )
    source = open_source(file)
    assert (source.kind, source.title) == ("list", "labels that may be wrong")
    first, second = source.items
    assert (first.path, first.suggested, first.score, first.reason) == (
        "photos/red/1.png", "green", 0.97, "unlike its class",
    )  # fmt: skip
    assert second.score is None
    assert source.labels == ("blue", "green", "red")
    assert "photos/green/9.png" in source.notes[0]
    assert open_source(_moved(photos, file)).items == source.items  # its folder, which has no picture


def _moved(photos: Path, file: Path) -> Path:
    folder = photos.parent / "findings"
    folder.mkdir()
    (folder / "suspects.csv").write_text(file.read_text())
    (folder / "photos").symlink_to(photos)
    (folder / "suspects.csv").write_text(file.read_text())
    (folder / "photos").unlink()
    photos.rename(folder / "photos")
    return folder / "suspects.csv"


def test_several_annotators_of_a_picture(photos: Path) -> None:
    file = photos / "labels.csv"
    file.write_text("path,label,annotator\nred/0.png,red,anna\nred/0.png,green,bob\nred/1.png,red,anna\n")
    source = open_source(file)
    assert source.kind == "set"
    assert source.items[0].named == (("anna", "red"), ("bob", "green"))
    assert [item.label for item in source.items] == ["", "red"]


def test_votes_of_contested_pictures(photos: Path) -> None:
    file = photos.parent / "contested.csv"
    file.write_text(
        "path,suggested,score,candidates,votes,reason\nphotos/red/0.png,,0.500,green; red,anna: red; bob: green,a tie\n"
    )
    source = open_source(file)
    assert (source.kind, source.labels) == ("list", ("green", "red"))
    assert (source.items[0].label, source.items[0].named) == ("", (("anna", "red"), ("bob", "green")))


def test_annotations_beside_bare_pictures(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cvat"
    folder.mkdir()
    for number in range(3):
        shutil.copy(photos / f"red/{number}.png", folder / f"{number}.png")
    images = "".join(f'<image id="{n}" name="{n}.png" width="32" height="32">{tag}</image>' for n, tag in enumerate(
        ('<tag label="red" source="manual"/>', '<tag label="green" source="manual"/>', "")))  # fmt: skip
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    source = open_source(folder)
    assert source.kind == "set"
    assert [(item.path, item.label) for item in source.items] == [("0.png", "red"), ("1.png", "green"), ("2.png", "")]


def test_the_mistakes_of_an_evaluation(photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    mistakes = [
        {"path": str(photos / "red/0.png"), "label": "red", "predicted": "blue", "confidence": 0.9},
        {"path": "gone.png", "label": "red", "predicted": "blue", "confidence": 0.8},
        {"path": "photos/red/1.png", "label": "red", "predicted": "green", "confidence": 0.7},
    ]
    content = {"bundle": "x", "mistakes": mistakes, "labels": ["blue", "green", "red"], "data": str(photos)}
    (report / "evaluation.json").write_text(json.dumps(content))
    source = open_source(report)
    assert [(item.path, item.suggested, item.confidence) for item in source.items] == [
        ("../photos/red/0.png", "blue", 0.9), ("../photos/red/1.png", "green", 0.7),
    ]  # fmt: skip
    assert "gone.png" in source.notes[0]
    assert open_source(report / "evaluation.json").items == source.items


def test_uploads_that_a_service_has_stored(photos: Path, tmp_path: Path) -> None:
    upload = Upload(
        request_id="r", at=datetime(2026, 11, 30, tzinfo=UTC), model="m", version="1", label="red", confidence=0.4,
        top=(("red", 0.4), ("blue", 0.3)), reason="unsure",
    )  # fmt: skip
    store(tmp_path / "kept", upload, (photos / "red/0.png").read_bytes())
    source = open_source(tmp_path / "kept")
    assert (source.kind, source.labels) == ("uploads", ("blue", "red"))
    assert (source.items[0].label, source.items[0].suggested, source.items[0].confidence) == ("", "red", 0.4)
    assert source.file(source.items[0].path).is_file()


def test_one_class_or_none_is_enough(photos: Path, tmp_path: Path) -> None:
    (photos.parent / "single").mkdir()
    (photos / "red").rename(tmp_path / "single/red")
    source = open_source(tmp_path / "single")
    assert (source.kind, source.labels, len(source.items)) == ("set", ("red",), 3)

    table = tmp_path / "table.csv"
    table.write_text("path,label\nphotos/blue/0.png,blue\nphotos/blue/1.png,\nphotos/green/1.png\n")
    source = open_source(table)
    assert source.kind == "set"
    assert [(item.path, item.label) for item in source.items] == [
        ("photos/blue/0.png", "blue"), ("photos/blue/1.png", ""), ("photos/green/1.png", ""),
    ]  # fmt: skip

    (photos / "annotations.xml").write_text(
        '<annotations><version>1.1</version><image id="0" name="blue/0.png" width="48" height="40"/></annotations>'
    )
    source = open_source(photos)
    assert (source.kind, {item.label for item in source.items}) == ("set", {""})


def test_a_list_takes_the_classes_of_a_bundle_too(photos: Path) -> None:
    assert open_source(photos / "red").with_labels_of(["red", "blue"]).labels == ("blue", "red")
    assert open_source(photos).with_labels_of(["teal"]).labels == ("blue", "green", "red")
    file = photos.parent / "next.csv"
    file.write_text("path,suggested\nphotos/red/0.png,red\n")
    assert open_source(file).with_labels_of(["Red", "blue"]).labels == ("blue", "red")


def test_what_cannot_be_reviewed(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "evaluation.json").write_text('{"mistakes": 3}')
    (tmp_path / "bad.csv").write_text("path,score\nphotos/red/0.png,high\n")
    (tmp_path / "twins.csv").write_text("path,label,score\nphotos/red/0.png,red,1\nphotos/red/1.png,Red,1\n")
    for path, classes in (
        ("empty", ()), ("nowhere", ()), ("evaluation.json", ()), ("bad.csv", ()), ("twins.csv", ()),
        ("photos", ("red", "green")), ("photos", ("red", "green", "blue", "Blue")),
    ):  # fmt: skip
        with pytest.raises(DataError):
            open_source(tmp_path / path, classes)


def test_a_stamp_tells_contents_apart_also_of_large_files(tmp_path: Path) -> None:
    file = tmp_path / "a"
    stamps = set()
    for content in (b"", b"a", b"b", b"a" * 200_000, b"a" * 199_999 + b"b", b"b" + b"a" * 199_999, b"a" * 200_001):
        file.write_bytes(content)
        stamps.add(content_stamp(file))
    assert len(stamps) == 7
    assert content_stamp(tmp_path / "none") == ""
