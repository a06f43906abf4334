"""COCO: one JSON file for each part, and a model's answers in COCO's format for results.

    OUT/annotations/labels_PART.json        classes of whole pictures, as Datumaro writes them: no bbox
    OUT/annotations/instances_PART.json     boxes
    OUT/predictions.json                    image_id, category_id, bbox and score of each answer

PART is train, val or test, and `default` without parts. Identifiers are the same in all files.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lensmith.data.label_export.marked_picture import MarkedPicture, MarkedPictures
from lensmith.imaging.crops import Box

PREDICTIONS = "predictions.json"


def write(given: MarkedPictures, out: Path) -> None:
    """Write the annotations of each part, and the answers of a model, into a folder."""
    ids = {picture.path: number for number, picture in enumerate(given.pictures, 1)}
    categories = {name: number for number, name in enumerate(given.classes, 1)}
    (out / "annotations").mkdir()
    for part, pictures in given.parted():
        for kind in ("labels", "instances"):
            if kind == ("instances" if given.has_boxes else "labels") or _count(pictures, kind):
                file = out / "annotations" / f"{kind}_{part or 'default'}.json"
                content = _content(pictures, ids, categories, kind)
                file.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    answers = [
        {
            "image_id": ids[picture.path], "category_id": categories[mark.label], "score": mark.score,
            **({} if mark.box is None else {"bbox": list(mark.box)}),
        }
        for picture in given.pictures for mark in picture.predictions
    ]  # fmt: skip
    if answers:
        (out / PREDICTIONS).write_text(json.dumps(answers) + "\n", encoding="utf-8")
    given.note_left_out([(len(given.annotators()), "names of annotators"), (len(given.groups()), "groups")], "COCO")


def _of_kind(picture: MarkedPicture, kind: str) -> list[tuple[str, Box | None]]:
    return [each for each in picture.labels if (each[1] is None) == (kind == "labels")]


def _count(pictures: Sequence[MarkedPicture], kind: str) -> int:
    return sum(len(_of_kind(picture, kind)) for picture in pictures)


def _content(
    pictures: Sequence[MarkedPicture], ids: dict[str, int], categories: dict[str, int], kind: str
) -> dict[str, Any]:
    images = [
        {"id": ids[each.path], "file_name": each.path, "width": each.size[0], "height": each.size[1]}
        for each in pictures
    ]
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        for label, box in _of_kind(picture, kind):
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": ids[picture.path],
                "category_id": categories[label],
            }
            if box is not None:
                annotation |= {"bbox": list(box), "area": box.width * box.height, "iscrowd": 0, "segmentation": []}
            annotations.append(annotation)
    named = [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()]
    return {"info": {}, "licenses": [], "categories": named, "images": images, "annotations": annotations}
