import json
from pathlib import Path
from typing import Any

import pytest

from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.fiftyone import FIFTYONE
from lensmith.data.annotations.reader import Area, Entry, Reading, Source

pytest.importorskip("ijson")


def entries_of(folder: Path, labels: dict[str, Any], classes: list[str] | None) -> tuple[list[Entry], Reading]:
    (folder / "data").mkdir()
    (folder / "labels.json").write_text(json.dumps({"classes": classes, "labels": labels}), encoding="utf-8")
    source, reading = Source(folder), Reading([], [])
    found = detect(source)
    assert found is not None
    assert found[0] is FIFTYONE
    return list(FIFTYONE.read(source, found[1].files, reading)), reading


def test_labels_by_number_name_and_object(tmp_path: Path) -> None:
    labels = {"a b": 1, "sub/ü": "cat", "c": {"label": "dog", "confidence": 0.5}, "d": None, "e": [0, 1], "f": 7}
    entries, reading = entries_of(tmp_path, labels, ["cat", "dog"])
    assert [(entry.picture, entry.label) for entry in entries] == [
        ("data/a b", "dog"), ("data/sub/ü", "cat"), ("data/c", "dog"), ("data/d", None), ("data/e", "cat"),
        ("data/e", "dog"), ("data/f", None),
    ]  # fmt: skip
    assert any("f" in warning for warning in reading.warnings)


def test_detections_without_a_list_of_classes(tmp_path: Path) -> None:
    entries, _ = entries_of(tmp_path, {"a": [{"label": "cat", "bounding_box": [0.25, 0.5, 0.5, 0.25]}]}, None)
    assert entries == [Entry("data/a", "cat", Area(0.25, 0.5, 0.75, 0.75, is_share=True))]
