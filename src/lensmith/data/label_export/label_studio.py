"""Label Studio: tasks for an import, with annotations and predictions, and the labelling configuration they need.

    OUT/tasks.json                  one task for each picture
    OUT/labeling-config.xml         for Settings → Labeling Interface → Code

Pictures stay where they are: Label Studio serves them from a local storage.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from lensmith.data.label_export.marked_picture import Mark, MarkedPicture, MarkedPictures

TASKS, CONFIG = "tasks.json", "labeling-config.xml"
CHOICES, BOXES = "class", "box"
"""Names of the controls for whole pictures, and for boxes."""


def write(given: MarkedPictures, out: Path) -> None:
    """Write the tasks and the configuration into a folder.

    An annotator becomes `completed_by`: an e-mail address or the number of a user, which Label Studio wants to know.
    """
    prefix = f"{given.root.resolve().name}/" if given.root.resolve().name else ""
    with (out / TASKS).open("w", encoding="utf-8") as file:
        for number, picture in enumerate(given.pictures):
            file.write("[\n" if number == 0 else ",\n")
            file.write(json.dumps(_task(picture, prefix), ensure_ascii=False))
        file.write("\n]\n")
    (out / CONFIG).write_text(configuration(given), encoding="utf-8")
    annotators = given.annotators()
    others = sorted(name for name in annotators if _completed_by(name) is None)
    if known := len(annotators) - len(others):
        given.notes.append(
            f"Annotators who must be users of Label Studio before the import: {known:,}. With "
            "ALLOW_IMPORT_TASKS_WITH_UNKNOWN_EMAILS=true, unknown addresses' labels belong to whoever imports."
        )
    lost = "names of annotators that are no e-mail address and no user's number"
    given.note_left_out([(len(others), lost)], "Label Studio")
    if not given.classes:
        given.notes.append(f"No class is known: add the names to {CONFIG}.")


def configuration(given: MarkedPictures) -> str:
    """The labelling configuration in XML: choices for whole pictures, rectangles for boxes."""
    pictures = given.pictures
    marks = [mark for picture in pictures for mark in (*picture.marks, *picture.predictions)]
    boxes = any(mark.box for mark in marks)
    lines = ["<View>", '  <Image name="image" value="$image" zoom="true"/>']
    if boxes:
        labels = [f"    <Label value={quoteattr(name)}/>" for name in given.classes]
        lines += [f'  <RectangleLabels name="{BOXES}" toName="image">', *labels, "  </RectangleLabels>"]
    if not boxes or any(mark.box is None for mark in marks):
        several = any(len(set(labels)) > 1 for picture in pictures for labels in _by_annotator(picture).values())
        choice = "multiple" if several else "single"
        labels = [f"    <Choice value={quoteattr(name)}/>" for name in given.classes]
        control = f'  <Choices name="{CHOICES}" toName="image" choice="{choice}" showInLine="true">'
        lines += [control, *labels, "  </Choices>"]
    return "\n".join([*lines, "</View>", ""])


def _by_annotator(picture: MarkedPicture) -> dict[str, list[str]]:
    """Annotator → classes that were given to the whole picture."""
    given: dict[str, list[str]] = {}
    for mark in picture.marks:
        if mark.box is None:
            given.setdefault(mark.annotator, []).append(mark.label)
    return given


def _task(picture: MarkedPicture, prefix: str) -> dict[str, Any]:
    data = {"image": f"/data/local-files/?d={quote(prefix + picture.path)}"}
    if picture.part:
        data["split"] = picture.part
    if picture.group:
        data["group"] = picture.group
    annotations = [
        {"result": list(_results(picture, marks)), "was_cancelled": False, "ground_truth": False, **_whose(name)}
        for name, marks in _grouped(picture.marks, [mark.annotator for mark in picture.marks])
    ]
    task: dict[str, Any] = {"data": data, "annotations": annotations}
    if picture.predictions:
        task["predictions"] = [
            {
                "model_version": model,
                "score": max(mark.score or 0.0 for mark in marks),
                "result": list(_results(picture, marks)),
            }
            for model, marks in _grouped(picture.predictions, [mark.model for mark in picture.predictions])
        ]
    return task


def _grouped(marks: Sequence[Mark], keys: Sequence[str]) -> list[tuple[str, list[Mark]]]:
    found: dict[str, list[Mark]] = {}
    for key, mark in zip(keys, marks, strict=True):
        found.setdefault(key, []).append(mark)
    return list(found.items())


def _results(picture: MarkedPicture, marks: Sequence[Mark]) -> Iterator[dict[str, Any]]:
    if whole := [mark for mark in marks if mark.box is None]:
        choices = list(dict.fromkeys(mark.label for mark in whole))
        yield {"from_name": CHOICES, "to_name": "image", "type": "choices", "value": {"choices": choices}}
    width, height = picture.size
    for number, mark in enumerate(marks):
        if mark.box is not None:
            yield {
                "id": f"box{number}", "from_name": BOXES, "to_name": "image", "type": "rectanglelabels",
                "original_width": width, "original_height": height, "image_rotation": 0,
                **({} if mark.score is None else {"score": mark.score}),
                "value": {
                    "x": 100 * mark.box.x / width, "y": 100 * mark.box.y / height,
                    "width": 100 * mark.box.width / width, "height": 100 * mark.box.height / height,
                    "rotation": 0, "rectanglelabels": [mark.label],
                },
            }  # fmt: skip


def _whose(annotator: str) -> dict[str, Any]:
    completed_by = _completed_by(annotator)
    return {} if completed_by is None else {"completed_by": completed_by}


def _completed_by(annotator: str) -> int | dict[str, str] | None:
    """An annotator as Label Studio names its users; None for a name that can be neither."""
    if annotator.isascii() and annotator.isdigit():
        return int(annotator)
    return {"email": annotator} if "@" in annotator else None
