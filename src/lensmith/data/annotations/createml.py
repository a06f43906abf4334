"""CreateML JSON, which LabelImg writes as well: a list of pictures with labels, and boxes by their centre in pixels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lensmith.data.annotations.json_stream import json_items
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source, damaged

_PICTURE = ("image", "imagefilename")
_LABELS = ("annotations", "annotation")


def looks_like(source: Source) -> Look:
    """JSON files that are a list of objects with a picture's name and its annotations, as LabelImg's for a picture."""
    return Look(source.json_files(lambda head: isinstance(head, list) and bool(head) and _is_picture(head[0])))


def _is_picture(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(_first(value, _PICTURE), str):
        return False
    labels = _first(value, _LABELS)
    if isinstance(labels, list):
        return not labels or (isinstance(labels[0], Mapping) and {"label", "coordinates"} & labels[0].keys() != set())
    return isinstance(labels, str) and value.keys() <= {*_PICTURE, *_LABELS}


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all files: one for each annotation, and one for each picture without any."""
    foreign = 0
    for file in files:
        for picture in json_items(source.root / file):
            name = _first(picture, _PICTURE) if isinstance(picture, Mapping) else None
            if not isinstance(name, str) or not name:
                foreign += 1
                continue
            labelled = False
            labels = _first(picture, _LABELS)
            for each in _as_list(labels):
                label = each.get("label") if isinstance(each, Mapping) else None
                if isinstance(label, str | int | float) and not isinstance(label, bool) and str(label).strip():
                    labelled = True
                    yield Entry(name, str(label), _area(each.get("coordinates"), file, name))
            if not labelled:
                yield Entry(name, None)
    if foreign:
        reading.warnings.append(f"Elements without a picture's name, which are left out: {foreign:,}.")


def _as_list(labels: Any) -> list[Any]:
    """Annotations as a list; a text is the label of the whole picture, and anything else is none."""
    if isinstance(labels, str):
        return [{"label": labels}]
    return labels if isinstance(labels, list) else []


def _area(coordinates: Any, file: str, name: str) -> Area | None:
    if not coordinates:
        return None
    try:
        x, y, width, height = (float(coordinates[key]) for key in ("x", "y", "width", "height"))
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError
    except (TypeError, ValueError, KeyError) as error:
        raise damaged(
            f"Numbers x, y, width and height were expected in the coordinates of {name} in {file}.",
            f"{str(coordinates)[:80]} is there.",
        ) from error
    return Area(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _first(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((value[name] for name in names if name in value), None)


CREATEML = Reader("createml", "CreateML JSON", looks_like, read)
