"""Boxes of several annotators: which are of one object, and what agreement and training make of them."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from lensmith import agreement
from lensmith.config import ImportSettings
from lensmith.data.annotation import Annotation
from lensmith.data.import_annotations import import_annotations
from lensmith.data.matched_boxes import match_boxes
from lensmith.data.scan import scan


def row(box: str, label: str = "cat", annotator: str = "anna", picture: str = "a.jpg") -> Annotation:
    return Annotation(f"{picture}#xywh={box}", label, annotator=annotator)


def boxes(*rows: Annotation) -> list[str]:
    return [each.path.partition("=")[2] for each in match_boxes(rows).rows]


def test_the_box_that_overlaps_best_with_the_others_stands_for_all() -> None:
    found = match_boxes([row("0,0,10,10"), row("2,0,10,10", annotator="ben"), row("3,0,10,10", annotator="carla")])
    assert [each.path for each in found.rows] == ["a.jpg#xywh=2,0,10,10"] * 3
    assert [each.annotator for each in found.rows] == ["anna", "ben", "carla"]
    assert (found.boxes, found.objects, found.alone) == (3, 1, 0)


@pytest.mark.parametrize(("width", "is_one"), [(50, True), (49, False)])
def test_half_an_overlap_is_enough(width: int, is_one: bool) -> None:
    found = boxes(row("0,0,100,100"), row(f"0,0,{width},100", annotator="ben"))
    assert (len(set(found)) == 1) == is_one


def test_the_largest_overlap_is_matched_first_and_an_object_has_one_box_of_each() -> None:
    rows = (row("0,0,10,10"), row("0,0,10,8"), row("0,0,10,9", "dog", "ben"), row("0,0,10,8", "dog", "ben"))
    assert boxes(*rows) == ["0,0,10,9", "0,0,10,8", "0,0,10,9", "0,0,10,8"]


def test_of_equal_overlaps_one_class_goes_first() -> None:
    rows = (row("0,0,10,10"), row("0,1,10,9", "dog", "ben"), row("1,0,9,10", "cat", "ben"))
    assert boxes(*rows) == ["0,0,10,10", "0,1,10,9", "0,0,10,10"]


def test_boxes_of_one_person_or_of_two_pictures_stay_apart() -> None:
    rows = [row("0,0,10,10"), row("1,0,10,10"), row("0,0,10,9", annotator="ben", picture="b.jpg")]
    found = match_boxes(rows)
    assert (found.rows, found.notes) == (rows, ())
    assert match_boxes([row("0,0,9,9", annotator="Anna"), row("1,0,9,9", annotator="anna")]).objects == 0


def test_two_labels_of_one_box_and_whole_pictures_stay_with_their_annotator() -> None:
    rows = [row("0,0,9,9"), row("0,0,9,9", "dog"), row("0,0,9,8", annotator="ben"), Annotation("a.jpg", "dog")]
    found = match_boxes(rows)
    assert [each.path for each in found.rows] == ["a.jpg#xywh=0,0,9,8"] * 3 + ["a.jpg"]
    assert [each.label for each in found.rows] == ["cat", "dog", "cat", "dog"]


def test_the_order_of_rows_changes_nothing() -> None:
    """A bundle knows the crops that it learnt from by their content, so they must be the same in a manifest."""
    rows = [
        row("1,0,10,10"),
        row("0,0,10,10", annotator="ben"),
        row("30,0,10,10", "dog"),
        row("29,1,10,10", "dog", "ben"),
    ]
    assert {each.path for each in match_boxes(rows).rows} == {each.path for each in match_boxes(rows[::-1]).rows}


def test_many_boxes_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"{20 * n},0,10,10", annotator=who) for who in ("anna", "ben") for n in range(40)]
    moved = [each._replace(path=each.path.replace(",10,10", ",10,9")) if each.annotator == "ben" else each
             for each in rows]  # fmt: skip
    whole = match_boxes(moved)
    assert (whole.boxes, whole.objects, whole.alone) == (80, 40, 0)
    monkeypatch.setattr("lensmith.data.matched_boxes._PAIRS", 100)
    assert match_boxes(moved) == whole


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Label Studio's boxes of three people in two pictures: one object in all, one that anna alone saw."""
    people = {
        "anna@x.y": [("cat", 10, 10, 50, 50), ("dog", 70, 70, 20, 20)],
        "ben@x.y": [("cat", 12, 10, 50, 50)],
        "carla@x.y": [("dog", 12, 12, 50, 50)],
    }
    tasks = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 100), (90, 90, 90)).save(tmp_path / name)
        annotations = []
        for who, drawn in people.items():
            result = [
                {
                    "id": str(number), "from_name": "box", "to_name": "image", "type": "rectanglelabels",
                    "original_width": 100, "original_height": 100,
                    "value": {"x": x, "y": y, "width": w, "height": h, "rectanglelabels": [label]},
                }
                for number, (label, x, y, w, h) in enumerate(drawn)
            ]  # fmt: skip
            annotations.append({"result": result, "completed_by": {"email": who}})
        tasks.append({"data": {"image": name}, "annotations": annotations})
    (tmp_path / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    return tmp_path


def test_training_and_agreement_see_objects_and_the_manifest_has_the_boxes_of_each(labelled: Path) -> None:
    images = scan(labelled)
    assert {sample.path: images.labels[sample.label] for sample in images.samples} == {
        f"{name}#xywh={box}": label for name in ("a.png", "b.png")
        for box, label in (("12,10,50,50", "cat"), ("70,70,20,20", "dog"))
    }  # fmt: skip
    assert any("8 boxes are of 4 objects, 2 of which one annotator alone drew" in note for note in images.notes)
    found = agreement(labelled)
    assert (found.images, found.compared, found.labels) == (4, 2, 8)
    assert found.percentage_agreement.value == pytest.approx(1 / 3)
    out = labelled / "out" / "labels.csv"
    result = import_annotations(ImportSettings(source=labelled, out=out))
    with out.open(newline="", encoding="utf-8") as lines:
        assert len({line["path"] for line in csv.DictReader(lines)}) == 8
    again = scan(out)
    assert again.counts() == images.counts() == result.counts
    crops = import_annotations(ImportSettings(source=labelled, out=labelled / "c.csv", crops=labelled / "crops"))
    assert len(list((labelled / "crops").iterdir())) == 4
    assert scan(labelled / "c.csv").counts() == images.counts() == crops.counts
