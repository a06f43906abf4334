import json
from pathlib import Path
from typing import Any

import pytest

from lensmith.data.annotations.createml import CREATEML
from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.reader import Area, Entry, Reading, Source
from lensmith.errors import DataError

pytest.importorskip("ijson")


def entries_of(folder: Path) -> list[Entry]:
    source = Source(folder)
    found = detect(source)
    assert found is not None
    assert found[0] is CREATEML
    return list(CREATEML.read(source, found[1].files, Reading([], [])))


def picture(name: str, *labels: dict[str, Any]) -> dict[str, Any]:
    return {"image": name, "verified": False, "annotations": list(labels)}  # as LabelImg writes it


BOX = {"label": "cät", "coordinates": {"x": 30.0, "y": 25.0, "width": 20.0, "height": 10.0}}


def test_boxes_are_given_by_their_centres(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps([picture("a b.jpg", BOX), picture("empty.jpg")]), encoding="utf-8")
    assert entries_of(tmp_path) == [Entry("a b.jpg", "cät", Area(20, 20, 40, 30)), Entry("empty.jpg", None)]


def test_a_file_for_each_picture_and_labels_of_whole_pictures(tmp_path: Path) -> None:
    for number in range(30):  # more than are looked into
        (tmp_path / f"{number:02}.json").write_text(json.dumps([picture(f"{number:02}.jpg", {"label": "dog"})]))
    assert entries_of(tmp_path) == [Entry(f"{number:02}.jpg", "dog") for number in range(30)]


@pytest.mark.parametrize("coordinates", [{"x": 1, "y": 2, "width": 3}, {"x": "a", "y": 2, "width": 3, "height": 4}, 7])
def test_broken_coordinates_are_refused(tmp_path: Path, coordinates: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps([picture("a.jpg", BOX, {"label": "cat", "coordinates": coordinates})]))
    with pytest.raises(DataError, match=r"a\.jpg"):
        entries_of(tmp_path)
