"""CVAT for images 1.1: an XML file to upload as annotations, and the labels that the task needs.

    OUT/annotations.xml         one <image> for each picture, with a tag for each class and a box for each crop
    OUT/annotations-NAME.xml    instead, the same for each annotator, where several labelled one picture: for jobs
    OUT/labels.json             for the task's constructor, under Raw

A model's answers are tags and boxes with source="auto". CVAT takes them for labels, so that only pictures without a
label have them.
"""

import json
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from lensmith.data.label_export.marked_picture import MarkedPicture, MarkedPictures
from lensmith.imaging.crops import Box

XML, LABELS = "annotations.xml", "labels.json"
DEFAULT = "default"
"""CVAT's name of the subset of pictures without one."""
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML has no form for."""


def write(given: MarkedPictures, out: Path) -> None:
    """Write the annotations and the task's labels into a folder."""
    kind = "any" if _has_both(given) else "rectangle" if given.has_boxes else "tag"
    has_parts = any(picture.part for picture in given.pictures)
    for picture in given.pictures:
        if _FORBIDDEN.search(picture.path):
            given.aside.append((picture.path, "its name has a control character, which XML does not allow"))
    given.pictures = [picture for picture in given.pictures if not _FORBIDDEN.search(picture.path)]
    of_picture = [{mark.annotator for mark in picture.marks} for picture in given.pictures]
    are_compared = max(map(len, of_picture), default=0) > 1
    people = sorted(set().union(*of_picture)) if are_compared else []
    for annotator, name in _files(people).items():
        with (out / name).open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
            _write_meta(file, given, kind, annotator or "")
            for number, picture in enumerate(given.pictures):
                _write_image(file, number, picture, has_parts, annotator)
            file.write("</annotations>\n")
    labels = [{"name": name, "type": kind, "attributes": []} for name in given.classes]
    (out / LABELS).write_text(json.dumps(labels, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    predicted = sum(bool(picture.marks and picture.predictions) for picture in given.pictures)
    given.note_left_out(
        [
            (0 if are_compared else len(given.annotators()), "names of annotators"),
            (len(given.groups()), "groups"),
            (predicted, "answers of the model for pictures that have a label"),
        ],
        "CVAT",
    )


def _files(people: Sequence[str]) -> dict[str | None, str]:
    """Annotator → name of the file; one for all, by None, without people."""
    names: dict[str | None, str] = {} if people else {None: XML}
    for annotator in people:
        plain = re.sub(r"[^\w.@+-]+", "_", annotator)[:50]
        stem = f"annotations-{plain}" if annotator else "annotations"
        taken = {name.lower() for name in names.values()}
        numbered = (f"{stem}{f'-{number}' * (number > 1)}.xml" for number in count(1))
        names[annotator] = next(name for name in numbered if name.lower() not in taken)
    return names


def _has_both(given: MarkedPictures) -> bool:
    marks = [mark for picture in given.pictures for mark in (*picture.marks, *picture.predictions)]
    return len({mark.box is None for mark in marks}) > 1


def _write_meta(file: TextIO, given: MarkedPictures, kind: str, annotator: str) -> None:
    """Write the labels, the annotator, and the subsets where there are some, as CVAT does for a project."""
    subsets = dict.fromkeys(picture.part or DEFAULT for picture in given.pictures)
    has_parts = any(picture.part for picture in given.pictures)
    owner = "project" if has_parts else "task"
    file.write(f"  <meta>\n    <{owner}>\n      <size>{len(given.pictures)}</size>\n      <mode>annotation</mode>\n")
    for subset in subsets if has_parts else ():
        file.write(f"      <subset>{subset}</subset>\n")
    if annotator:
        name = escape(_FORBIDDEN.sub("", annotator))
        file.write(f"      <assignee>\n        <username>{name}</username>\n      </assignee>\n")
    file.write("      <labels>\n")
    for name in given.classes:
        file.write(
            f"        <label>\n          <name>{escape(name)}</name>\n          <type>{kind}</type>\n"
            "          <attributes></attributes>\n        </label>\n"
        )
    file.write(f"      </labels>\n    </{owner}>\n  </meta>\n")


def _write_image(file: TextIO, number: int, picture: MarkedPicture, has_parts: bool, annotator: str | None) -> None:
    """Write a picture with the labels of an annotator; of all where that is None."""
    width, height = picture.size
    subset = f' subset="{picture.part or DEFAULT}"' if has_parts else ""
    file.write(f'  <image id="{number}" name={quoteattr(picture.path)}{subset} width="{width}" height="{height}">\n')
    for label, box in picture.labels_of(annotator):
        file.write(_element(label, box, "manual"))
    if not picture.marks:
        for mark in picture.predictions:
            file.write(_element(mark.label, mark.box, "auto"))
    file.write("  </image>\n")


def _element(label: str, box: Box | None, source: str) -> str:
    if box is None:
        return f'    <tag label={quoteattr(label)} source="{source}"></tag>\n'
    edges = f'xtl="{box.x}.00" ytl="{box.y}.00" xbr="{box.x + box.width}.00" ybr="{box.y + box.height}.00"'
    return f'    <box label={quoteattr(label)} source="{source}" occluded="0" {edges} z_order="0"></box>\n'
