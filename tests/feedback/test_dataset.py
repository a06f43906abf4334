"""Stored uploads become an image folder, are counted, and are deleted."""

import csv
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lensmith import api
from lensmith.errors import DataError, OutputError, SettingsError
from lensmith.feedback import storage
from lensmith.feedback.storage import Upload


class Kept(api.FeedbackFolder):
    """A folder of stored uploads, `kept` beside the test's other folders."""

    def __init__(self, root: Path, colours: Path) -> None:
        self.root, self.path, self.out, self.others = root, root / "kept", root / "out", root / "others"
        self._colours = colours
        self._number = 0
        super().__init__(self.path)

    def picture(self, colour: str, number: int) -> bytes:
        """An encoded image, JPEG where the number is odd."""
        return (self._colours / colour / f"{number:03d}.{'jpg' if number % 2 else 'png'}").read_bytes()

    def add(self, colour: str, number: int, truth: str | None = None, **fields: Any) -> str:
        """Store an upload; returns its request's identifier."""
        default = {
            "request_id": f"request-{self._number}", "model": "colours", "version": "1", "label": "red",
            "at": datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=self._number),
            "confidence": 0.5, "reason": "unsure", "truth": truth,
        }  # fmt: skip
        self._number += 1
        upload = Upload.model_validate({**default, **fields})
        storage.store(self.path, upload, self.picture(colour, number))
        return upload.request_id

    def image(self, request_id: str) -> Path:
        """Path of the picture of a request's first image."""
        stem = storage.stem_of(request_id, 0)
        return next(each.image for each in storage.stored_uploads(self.path) if each.image.stem == stem)

    def files(self) -> list[Path]:
        return [each for each in self.path.rglob("*") if each.is_file()]


@pytest.fixture
def kept(tmp_path: Path, shared_colours: Path) -> Kept:
    return Kept(tmp_path, shared_colours)


def labels_in(folder: Path) -> list[str]:
    """The label of each image, and other files by their names."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file.parent.name if file.suffix in storage.SUFFIXES else file.name for file in files)


def test_labelled_uploads_become_an_image_folder_that_can_be_trained_on(kept: Kept) -> None:
    for number in range(3):
        kept.add("red", number, "red")
        kept.add("blue", number, "blue")
        kept.add("green", number)
    done = kept.export(kept.out)
    assert (done.written, done.there, done.waiting, done.set_aside) == ({"blue": 3, "red": 3}, 0, 3, [])
    assert labels_in(kept.out) == ["blue"] * 3 + ["red"] * 3
    checked = api.check(kept.out)
    assert (checked.usable, checked.problems, set(checked.counts)) == (6, 0, {"blue", "red"})
    exported = {file.read_bytes() for file in (kept.out / "red").iterdir()}
    assert exported == {kept.picture("red", number) for number in range(3)}
    assert len(storage.stored_uploads(kept.path)) == 9  # they stay


def test_a_picture_is_exported_once_however_often_it_was_sent(kept: Kept) -> None:
    for _ in range(3):
        kept.add("red", 0, "red")
        kept.add("red", 0)  # the label of the same picture is known
    done = kept.export(kept.out, kept.others)
    assert (done.written, done.there, done.unlabelled) == ({"red": 1}, 5, 0)
    assert not kept.others.exists()


def test_labels_of_a_review_go_before_feedback_and_what_it_left_out_is_not_exported(kept: Kept) -> None:
    names = [kept.add("red", 0), kept.add("red", 2, "blue"), kept.add("red", 4), kept.add("red", 4), kept.add("red", 6)]
    paths = [kept.image(name).relative_to(kept.root) for name in names]
    (kept.root / "reviewed.csv").write_text(
        f"path,label,annotator\n{paths[0]},red,anna\n{paths[1]},teal,anna\nk,red,\n"
    )
    (kept.root / "out.csv").write_text(f"path\n{paths[2]}\n")
    done = kept.export(kept.out, relabel=kept.root / "reviewed.csv", exclude=kept.root / "out.csv")
    assert (done.written, done.excluded, done.waiting) == ({"red": 1, "teal": 1}, 2, 1)
    assert "k" in done.warnings[0]
    (kept.root / "out.csv").write_text("path\nother/1.png\n")
    with pytest.raises(DataError, match=r"other/1\.png"):
        kept.export(kept.root / "new", exclude=kept.root / "out.csv")
    assert not (kept.root / "new").exists()


def test_an_export_can_be_repeated_as_labels_come_in_and_replaces_nothing(kept: Kept) -> None:
    kept.add("red", 0, "red")
    kept.export(kept.out)
    (mine,) = (kept.out / "red").iterdir()
    mine.write_bytes(b"retouched")
    kept.add("red", 2, "red")
    again = kept.export(kept.out)
    assert (again.written, again.there) == ({"red": 1}, 1)
    assert mine.read_bytes() == b"retouched"


def test_images_are_added_to_a_folder_that_has_some(kept: Kept, colours: Path) -> None:
    kept.add("red", 0, "blue")
    before = len(list(colours.rglob("*")))
    kept.export(colours)
    assert (len(list(colours.rglob("*"))), len(list((colours / "blue").iterdir()))) == (before + 1, 9)


def test_a_picture_with_two_labels_is_left_out_and_named(kept: Kept) -> None:
    kept.add("red", 0, "red")
    kept.add("red", 0, "blue")
    done = kept.export(kept.out)
    assert (done.written, len(done.set_aside)) == ({}, 2)
    assert all("blue, red" in reason for _, reason in done.set_aside)
    assert not kept.out.exists()


def test_a_picture_that_was_exported_with_another_label_before_is_left_out_and_named(kept: Kept) -> None:
    kept.add("red", 0, "red")
    kept.export(kept.out)
    (kept.out / "red").rename(kept.out / "crimson")
    done = kept.export(kept.out)
    assert (done.written, done.there, len(done.set_aside)) == ({}, 0, 1)


@pytest.mark.parametrize("label", ["../escaped", "a/b", ".hidden", "..", "x" * 300, "a\\b", "@eaDir", "\u200b"])
def test_a_label_that_cannot_name_a_folder_makes_no_file(kept: Kept, label: str) -> None:
    kept.add("red", 0, label)
    kept.add("blue", 0, label=label)
    done = kept.export(kept.out, kept.others)
    assert (done.written, len(done.set_aside), done.unlabelled) == ({}, 1, 1)
    assert labels_in(kept.others) == ["index.csv", "unnamed"]
    assert {each.name for each in kept.root.iterdir()} == {"kept", "others"}


def test_unlabelled_uploads_are_copied_for_labelling_with_an_index(kept: Kept) -> None:
    first = kept.add("red", 0, confidence=0.4)
    kept.add("blue", 1, label="blue", reason="odd")
    kept.add("green", 0, "green")
    done = kept.export(kept.out, kept.others)
    assert (done.written, done.unlabelled, done.waiting) == ({"green": 1}, 2, 0)
    assert labels_in(kept.others) == ["blue", "index.csv", "red"]
    kept.add("blue", 3, label="blue")
    again = kept.export(kept.out, kept.others)
    assert (again.unlabelled, again.unlabelled_there, again.there) == (1, 2, 1)
    with (kept.others / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["guess"], row["reason"]) for row in rows] == [("red", "unsure"), ("blue", "odd"), ("blue", "unsure")]
    assert (rows[0]["request_id"], rows[0]["confidence"]) == (first, "0.4000")
    assert (kept.others / rows[0]["file"]).read_bytes() == kept.picture("red", 0)


@pytest.mark.parametrize(
    ("out", "others"),
    [
        ("kept", None), ("kept/2026-11-26", None), (".", None), ("out", "kept/others"), ("out", "out"),
        ("out/a", "out"), ("file", None), ("parts", None), ("split", None),
    ],
)  # fmt: skip
def test_where_images_would_be_lost_or_misread_nothing_is_written(kept: Kept, out: str, others: str | None) -> None:
    kept.add("red", 0, "red")
    kept.add("blue", 0)
    (kept.root / "file").write_text("")
    (kept.root / "parts" / "train" / "red").mkdir(parents=True)
    (kept.root / "split").mkdir()
    (kept.root / "split" / "splits.csv").write_text("path,label,split\n")
    before = sorted(kept.root.rglob("*"))
    with pytest.raises(OutputError):
        kept.export(kept.root / out, kept.root / others if others else None)
    assert sorted(kept.root.rglob("*")) == before


def test_uploads_that_were_just_removed_or_damaged_stop_no_export(kept: Kept) -> None:
    for number in range(3):
        kept.add("red", number, "red")
    one, two, _ = storage.stored_uploads(kept.path)
    one.sidecar.write_text("{")
    two.image.unlink()
    assert kept.export(kept.out).written == {"red": 1}


def test_nothing_to_export_makes_no_folder(kept: Kept) -> None:
    kept.add("red", 0)
    assert kept.export(kept.out).written == {}
    assert not kept.out.exists()


def test_uploads_are_counted_by_class_and_reason(kept: Kept) -> None:
    kept.add("red", 0, "red")
    kept.add("red", 1, "blue", reason="odd")
    kept.add("green", 0, label="green", reason="random")
    found = kept.summary()
    assert (found.uploads, found.labelled, found.right) == (3, 2, 1)
    assert found.reasons == {"odd": 1, "random": 1, "unsure": 1}
    assert found.labels == {
        "blue": {"labelled": 1},
        "green": {"kept": 1, "random": 1},
        "red": {"kept": 2, "unsure": 1, "labelled": 1, "odd": 1},
    }
    json.dumps(found.as_dict())


def test_uploads_are_deleted_by_age_by_request_or_all(kept: Kept) -> None:
    names = [kept.add("red", number) for number in range(4)]
    kept.add("blue", 0, request_id=names[0], image=1)
    old = kept.image(names[3])
    os.utime(old, (time.time() - 31 * 86_400,) * 2)
    assert kept.delete(older_than="30d").removed == 1
    assert not old.exists()
    done = kept.delete(request_ids=[names[0], "nobody"])
    assert (done.removed, done.left) == (2, 2)
    assert storage.find(kept.path, names[0], 0) is storage.find(kept.path, names[0], 1) is None
    assert kept.delete(everything=True).left == 0
    assert kept.files() == []


@pytest.mark.parametrize(
    "choice", [{}, {"older_than": "30d", "everything": True}, {"older_than": "soon"}, {"older_than": -1}]
)
def test_exactly_one_way_to_choose_uploads_is_needed(kept: Kept, choice: dict[str, Any]) -> None:
    kept.add("red", 0)
    with pytest.raises(SettingsError):
        kept.delete(**choice)
    assert len(storage.stored_uploads(kept.path)) == 1


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_a_folder_that_is_missing_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    folder = api.FeedbackFolder(tmp_path / path)
    for act in (folder.summary, lambda: folder.export(tmp_path / "out"), lambda: folder.delete(everything=True)):
        with pytest.raises(DataError):
            act()


def test_incomplete_uploads_are_deleted_too(kept: Kept) -> None:
    """As after the end of a service between a picture and its JSON file: a deletion must not leave the picture."""
    incomplete = [kept.image(kept.add("red", number)) for number in range(3)]
    complete = kept.add("blue", 1)
    for image in incomplete:
        image.with_suffix(".json").unlink()
    partial = incomplete[0].with_name(f".{incomplete[0].name}.1.partial")
    partial.write_bytes(b"half")
    kept.delete(request_ids=["request-0"])
    assert not partial.exists()
    assert [image.exists() for image in incomplete] == [False, True, True]
    os.utime(incomplete[1], (time.time() - 31 * 86_400,) * 2)
    kept.delete(older_than="30d")
    assert [image.exists() for image in incomplete] == [False, False, True]
    assert kept.image(complete).exists()
    kept.delete(everything=True)
    assert kept.files() == []


def test_true_labels_that_differ_in_what_nobody_sees_are_one_class(kept: Kept) -> None:
    for number, label in enumerate(("caf\u00e9", "cafe\u0301", "caf\u00e9 ", "\u200bcaf\u00e9")):
        kept.add("red", number, label)
    kept.add("red", 0, "cafe\u0301")  # the same picture, sent again
    done = kept.export(kept.out)
    assert (done.written, done.there, done.set_aside) == ({"caf\u00e9": 4}, 1, [])
    assert labels_in(kept.out) == ["caf\u00e9"] * 4


def test_a_true_label_that_only_looks_like_a_class_is_named(kept: Kept) -> None:
    kept.add("red", 0, "cat")
    kept.export(kept.out)
    kept.add("red", 1, "Cat")
    (named,) = kept.export(kept.out).set_aside
    assert "U+0043" in named[1]
    assert labels_in(kept.out) == ["cat"]


def test_images_go_to_no_folder_of_parts_whatever_they_are_called(kept: Kept) -> None:
    kept.add("red", 0, "red")
    (kept.out / "training_set/red").mkdir(parents=True)
    with pytest.raises(OutputError, match="training_set"):
        kept.export(kept.out)


def test_uploads_for_a_labelling_tool(kept: Kept) -> None:
    kept.add("red", 0, confidence=0.4)
    kept.add("red", 0, "red", confidence=0.9)  # the same picture, and its label
    kept.add("green", 1, label="blue", confidence=0.3)
    kept.add("blue", 2, "blue")
    kept.add("blue", 2, "green")
    done = kept.export_labels(kept.out)
    tasks = json.loads((kept.out / "tasks.json").read_text(encoding="utf-8"))
    found = {
        task["predictions"][0]["score"]: [each["result"][0]["value"]["choices"] for each in task["annotations"]]
        for task in tasks
    }
    assert found == {0.9: [["red"]], 0.3: []}
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"colours 1"}
    assert all(task["data"]["image"].startswith("/data/local-files/?d=kept/20") for task in tasks)
    assert [reason for _, reason in done.set_aside] == ["the same picture has several labels: blue, green"]
    assert (done.labelled, done.predicted) == (1, 2)
    assert len(kept.files()) == 10  # as they were


def test_without_uploads_there_is_nothing_to_label(kept: Kept) -> None:
    kept.path.mkdir()
    with pytest.raises(DataError):
        kept.export_labels(kept.out)
    assert not kept.out.exists()
