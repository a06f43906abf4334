"""FiftyOne image classification: `labels.json` with classes and a label for each picture by its name without ending.

    DIR/labels.json     {"classes": ["cat", "dog"], "labels": {"a": 0, "b": 1}}
    DIR/data/a.jpg      the pictures

Detections of FiftyOne have a list of boxes (left, top, width and height as shares) in the place of the label.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lensmith.core.text import listed
from lensmith.data.annotations.json_stream import json_items, json_pairs
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source

FILE = "labels.json"


def looks_like(source: Source) -> Look:
    """A `labels.json` that is an object with `classes` and `labels`."""
    head = source.json_heads.get(FILE)
    if not isinstance(head, Mapping) or "classes" not in head:
        return Look()
    if "labels" in head and not isinstance(head["labels"], Mapping):
        return Look(lacks=f"labels in {FILE} are no object with a label for each picture.")
    return Look((FILE,))


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries: one for each label, and one for each picture without any."""
    folder = "data/" if "data" in source.folders else ""
    foreign: list[str] = []
    for file in files:
        path = source.root / file
        classes = [str(name) for name in json_items(path, "classes.item")]
        for stem, target in json_pairs(path, "labels"):
            entry = Entry(folder + stem, None)
            labelled = False
            for each in target if isinstance(target, list) else [target]:
                label, area = _label(each, classes)
                if label is None and each is not None:
                    foreign.append(stem)
                if label is not None:
                    labelled = True
                    yield entry._replace(label=label, area=area)
            if not labelled:
                yield entry
    if foreign:
        reading.warnings.append(
            f"Labels that name no class, and are left out: {len(foreign):,} ({listed(foreign, 3)})."
        )


def _label(target: Any, classes: Sequence[str]) -> tuple[str | None, Area | None]:
    """The class that a target names (by number, by name or within an object), and its box."""
    area = None
    if isinstance(target, Mapping):
        if "bounding_box" in target:
            area = _area(target["bounding_box"])
            if area is None:
                return None, None
        target = target.get("label")
    if isinstance(target, bool):
        return None, None
    if isinstance(target, int | float):
        number = int(target)
        return (classes[number] if number == target and 0 <= number < len(classes) else None), area
    return (target if isinstance(target, str) and target.strip() else None), area


def _area(box: Any) -> Area | None:
    try:
        left, top, width, height = map(float, box)
    except (TypeError, ValueError):
        return None
    edges = (left, top, left + width, top + height)
    return Area(*edges, is_share=True) if all(map(math.isfinite, edges)) else None


FIFTYONE = Reader("fiftyone", "FiftyOne image classification", looks_like, read)
