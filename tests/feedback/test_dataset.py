"""Stored uploads become an image folder, are counted, and are deleted."""

import csv
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lensmith import api
from lensmith.errors import DataError, OutputError, SettingsError
from lensmith.feedback import storage
from lensmith.feedback.storage import Upload

Store = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`store(image, truth, **fields)` stores an upload in tmp_path/kept and returns its request's identifier."""
    numbers = iter(range(1000))

    def make(encoded: bytes, truth: str | None = None, **fields: Any) -> str:
        number = next(numbers)
        said = {
            "request_id": f"request-{number}",
            "at": datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=number),
            "model": "colours",
            "version": "1",
            "label": "red",
            "confidence": 0.5,
            "reason": "unsure",
            "truth": truth,
            **fields,
        }
        storage.store(tmp_path / "kept", Upload.model_validate(said), encoded)
        return str(said["request_id"])

    return make


def image_of(folder: Path, request_id: str) -> Path:
    """Path of the picture of a request's first image."""
    stem = storage.stem_of(request_id, 0)
    return next(stored.image for stored in storage.stored_uploads(folder) if stored.image.stem == stem)


def files(folder: Path) -> list[str]:
    """Labels of its images, and other files by their names."""
    return sorted(
        file.parent.name if file.suffix in storage.SUFFIXES else file.name
        for file in folder.rglob("*")
        if file.is_file()
    )


@pytest.fixture
def picture(shared_colours: Path) -> Callable[[str, int], bytes]:
    """`picture(colour, number)`: an encoded image, JPEG where the number is odd."""

    def read(colour: str, number: int) -> bytes:
        return (shared_colours / colour / f"{number:03d}.{'jpg' if number % 2 else 'png'}").read_bytes()

    return read


def test_labelled_uploads_become_an_image_folder_that_can_be_trained_on(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    for number in range(3):
        store(picture("red", number), "red")
        store(picture("blue", number), "blue")
        store(picture("green", number))
    done = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out")
    assert (done.written, done.there, done.waiting, done.set_aside) == ({"blue": 3, "red": 3}, 0, 3, [])
    assert files(tmp_path / "out") == ["blue"] * 3 + ["red"] * 3
    checked = api.check(tmp_path / "out")
    assert (checked.usable, checked.problems, set(checked.counts)) == (6, 0, {"blue", "red"})
    exported = {file.read_bytes() for file in (tmp_path / "out" / "red").iterdir()}
    assert exported == {picture("red", number) for number in range(3)}
    assert len(storage.stored_uploads(tmp_path / "kept")) == 9  # they stay


def test_a_picture_is_exported_once_however_often_it_came(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    for _ in range(3):
        store(picture("red", 0), "red")
        store(picture("red", 0))  # and of these it is known what it is
    done = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out", tmp_path / "others")
    assert (done.written, done.there, done.unlabelled) == ({"red": 1}, 5, 0)
    assert not (tmp_path / "others").exists()


def test_an_export_can_be_repeated_as_labels_come_in_and_replaces_nothing(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    store(picture("red", 0), "red")
    api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out")
    (mine,) = (tmp_path / "out" / "red").iterdir()
    mine.write_bytes(b"retouched")
    store(picture("red", 2), "red")
    again = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out")
    assert (again.written, again.there) == ({"red": 1}, 1)
    assert mine.read_bytes() == b"retouched"


def test_images_are_added_to_a_folder_that_has_some(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path, colours: Path
) -> None:
    store(picture("red", 0), "blue")
    before = sorted(colours.rglob("*"))
    api.FeedbackFolder(tmp_path / "kept").export(colours)
    assert len(sorted(colours.rglob("*"))) == len(before) + 1
    assert len(list((colours / "blue").iterdir())) == 9


def test_a_picture_with_two_labels_is_left_out_and_named(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    store(picture("red", 0), "red")
    store(picture("red", 0), "blue")
    done = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out")
    assert done.written == {}
    assert len(done.set_aside) == 2
    assert all("blue, red" in reason for _, reason in done.set_aside)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_was_exported_as_something_else_before_is_left_out_and_named(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    store(picture("red", 0), "red")
    api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out")
    (tmp_path / "out" / "red").rename(tmp_path / "out" / "crimson")
    done = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out")
    assert (done.written, done.there, len(done.set_aside)) == ({}, 0, 1)


@pytest.mark.parametrize("label", ["../escaped", "a/b", ".hidden", "..", "x" * 300, "a\\b"])
def test_a_label_that_is_no_folders_name_makes_no_file(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path, label: str
) -> None:
    store(picture("red", 0), label)
    store(picture("blue", 0), label=label)
    done = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out", tmp_path / "others")
    assert (done.written, len(done.set_aside), done.unlabelled) == ({}, 1, 1)
    assert files(tmp_path / "others") == ["index.csv", "unnamed"]
    assert {each.name for each in tmp_path.iterdir()} == {"kept", "others"}


def test_unlabelled_uploads_go_where_a_person_sorts_them_with_an_index(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    first = store(picture("red", 0), confidence=0.4)
    store(picture("blue", 1), label="blue", reason="odd")
    store(picture("green", 0), "green")
    done = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out", tmp_path / "others")
    assert (done.written, done.unlabelled, done.waiting) == ({"green": 1}, 2, 0)
    assert files(tmp_path / "others") == ["blue", "index.csv", "red"]
    store(picture("blue", 3), label="blue")
    again = api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out", tmp_path / "others")
    assert (again.unlabelled, again.there) == (1, 3)
    with (tmp_path / "others" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["guess"], row["reason"]) for row in rows] == [("red", "unsure"), ("blue", "odd"), ("blue", "unsure")]
    assert (rows[0]["request_id"], rows[0]["confidence"]) == (first, "0.4000")
    assert (tmp_path / "others" / rows[0]["file"]).read_bytes() == picture("red", 0)


@pytest.mark.parametrize(
    ("out", "others"),
    [
        ("kept", None),
        ("kept/2026-11-26", None),
        (".", None),
        ("out", "kept/others"),
        ("out", "out"),
        ("out/a", "out"),
        ("file", None),
        ("parts", None),
        ("split", None),
    ],
)
def test_where_images_would_be_lost_or_misread_nothing_is_written(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path, out: str, others: str | None
) -> None:
    store(picture("red", 0), "red")
    store(picture("blue", 0))
    (tmp_path / "file").write_text("")
    (tmp_path / "parts" / "train" / "red").mkdir(parents=True)
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "splits.csv").write_text("path,label,split\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError):
        api.FeedbackFolder(tmp_path / "kept").export(tmp_path / out, tmp_path / others if others else None)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_has_just_been_removed_or_damaged_stops_no_export(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    for number in range(3):
        store(picture("red", number), "red")
    one, two, _ = storage.stored_uploads(tmp_path / "kept")
    one.sidecar.write_text("{")
    two.image.unlink()
    assert api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out").written == {"red": 1}


def test_nothing_to_export_makes_no_folder(store: Store, picture: Callable[[str, int], bytes], tmp_path: Path) -> None:
    store(picture("red", 0))
    assert api.FeedbackFolder(tmp_path / "kept").export(tmp_path / "out").written == {}
    assert not (tmp_path / "out").exists()


def test_uploads_are_counted_by_class_and_reason(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    store(picture("red", 0), "red")
    store(picture("red", 1), "blue", reason="odd")
    store(picture("green", 0), label="green", reason="random")
    found = api.FeedbackFolder(tmp_path / "kept").summary()
    assert (found.uploads, found.labelled, found.right) == (3, 2, 1)
    assert found.reasons == {"odd": 1, "random": 1, "unsure": 1}
    assert found.labels == {
        "blue": {"labelled": 1},
        "green": {"kept": 1, "random": 1},
        "red": {"kept": 2, "unsure": 1, "labelled": 1, "odd": 1},
    }
    json.dumps(found.as_dict())


def test_uploads_are_deleted_by_age_by_request_or_all(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    names = [store(picture("red", number)) for number in range(4)]
    store(picture("blue", 0), request_id=names[0], image=1)
    old = image_of(folder, names[3])
    os.utime(old, (time.time() - 31 * 86_400,) * 2)
    assert api.FeedbackFolder(folder).delete(older_than="30d").removed == 1
    assert not old.exists()
    done = api.FeedbackFolder(folder).delete(request_ids=[names[0], "nobody"])
    assert (done.removed, done.left) == (2, 2)
    assert storage.find(folder, names[0], 0) is storage.find(folder, names[0], 1) is None
    assert api.FeedbackFolder(folder).delete(everything=True).left == 0
    assert [each for each in folder.rglob("*") if each.is_file()] == []


@pytest.mark.parametrize(
    "said", [{}, {"older_than": "30d", "everything": True}, {"older_than": "soon"}, {"older_than": -1}]
)
def test_what_to_delete_must_be_said_clearly(
    store: Store, picture: Callable[[str, int], bytes], tmp_path: Path, said: dict[str, Any]
) -> None:
    store(picture("red", 0))
    with pytest.raises(SettingsError):
        api.FeedbackFolder(tmp_path / "kept").delete(**said)
    assert len(storage.stored_uploads(tmp_path / "kept")) == 1


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        for act in (
            lambda path: api.FeedbackFolder(path).summary(),
            lambda path: api.FeedbackFolder(path).export(tmp_path / "out"),
            lambda path: api.FeedbackFolder(path).delete(everything=True),
        ):
            with pytest.raises(DataError):
                act(path)


def test_incomplete_uploads_are_deleted_too(store: Store, picture: Callable[[str, int], bytes], tmp_path: Path) -> None:
    """As after the end of a service between a picture and its JSON file: a deletion must not leave the picture."""
    folder = tmp_path / "kept"
    halves = [image_of(folder, store(picture("red", number))) for number in range(3)]
    whole = store(picture("blue", 1))
    for half in halves:
        half.with_suffix(".json").unlink()
    partial = halves[0].with_name(f".{halves[0].name}.1.partial")
    partial.write_bytes(picture("red", 0))
    api.FeedbackFolder(folder).delete(request_ids=["request-0"])
    assert not halves[0].exists()
    assert not partial.exists()
    assert halves[1].exists()
    os.utime(halves[1], (time.time() - 31 * 86_400,) * 2)
    api.FeedbackFolder(folder).delete(older_than="30d")
    assert [half.exists() for half in halves] == [False, False, True]
    assert image_of(folder, whole).exists()
    api.FeedbackFolder(folder).delete(everything=True)
    assert [each for each in folder.rglob("*") if each.is_file()] == []
