"""Label Studio JSON-MIN and CSV: one row for each annotation, with a column named as each control of the project."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lensmith.core.text import listed
from lensmith.data.annotations.json_stream import json_items
from lensmith.data.annotations.label_studio import SHAPES, area_of, describe_ambiguous, is_shape, names_in, one_control
from lensmith.data.annotations.picture_references import PictureReferences, picture_column
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source
from lensmith.errors import DataError

_SIGNS = {"annotation_id", "annotator", "lead_time"}
"""Columns by which a file is recognised."""
_OWN = {*_SIGNS, "id", "created_at", "updated_at", "agreement", "history"}
"""Columns that are neither data of a task nor controls of a project."""

_DATA = ("split", "group")
"""Data of a task that `lensmith data export` writes."""

_Row = Mapping[str, Any]
_Label = tuple[str, Area | None]


def looks_like_json(source: Source) -> Look:
    """JSON files that are a list of rows with the columns of JSON-MIN."""
    return Look(source.json_files(_is_table))


def _is_table(head: Any) -> bool:
    return isinstance(head, list) and bool(head) and isinstance(head[0], dict) and head[0].keys() >= _SIGNS


def looks_like_csv(source: Source) -> Look:
    """Tables whose first line has the columns of Label Studio."""
    files = source.files(".csv", ".tsv")
    return Look(tuple(file for file in files if set(_columns(source.beginning(file))) >= _SIGNS))


def read_json(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of JSON-MIN files: one for each label of each row, and one for each picture without any."""
    yield from _read(source, files, reading, _rows_of_json, is_ordered=True)


def read_csv(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of CSV and TSV files, as those of JSON-MIN."""
    yield from _read(source, files, reading, _rows_of_csv, is_ordered=False)


def _read(source: Source, files: Sequence[str], reading: Reading, rows_of: Any, is_ordered: bool) -> Iterator[Entry]:
    entries: list[Entry] = []
    unlabelled: dict[str, Entry] = {}
    foreign = 0
    for file in files:
        path = source.root / file
        picture, controls = _find_columns(path, rows_of(path), is_ordered)
        for row in rows_of(path):
            reference = row.get(picture)
            if not isinstance(reference, str) or not reference:
                foreign += 1
                continue
            subset, group = (_text(row.get(name)) if name not in controls else "" for name in _DATA)
            annotator = row.get("annotator")
            about = Entry(reference, None, subset=subset, group=group)
            labels = [(*label, control) for control in controls for label in _labels(row.get(control))]
            name = "" if annotator in (None, [], {}) else str(annotator).strip()
            entries += [
                about._replace(label=label, area=area, annotator=name, attributes=() if area else ((control, label),))
                for label, area, control in labels
            ]
            if not labels:
                unlabelled[reference] = about
    for entry in entries:
        unlabelled.pop(entry.picture, None)
    entries += unlabelled.values()
    pictures = PictureReferences(source.root, (entry.picture for entry in entries))
    describe_ambiguous(pictures, reading)
    if foreign:
        reading.warnings.append(f"Rows without the address of a picture, which are left out: {foreign:,}.")
    for entry in one_control(entries, reading):
        yield entry._replace(picture=pictures.path(entry.picture))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _find_columns(file: Path, rows: Iterable[_Row], is_ordered: bool) -> tuple[str, list[str]]:
    """The column of the picture, and those of the controls that give its class or boxes.

    In JSON-MIN the controls stand between `id` and `annotator`; elsewhere all columns are looked at.
    """
    picture, ordered = "", dict[str, bool]()
    kinds: dict[str, set[str]] = {}
    for row in rows:
        picture = picture or picture_column({key: value for key, value in row.items() if key not in _OWN}) or ""
        names = list(row)
        if is_ordered and "id" in names and "annotator" in names:
            ordered |= dict.fromkeys(names[names.index("id") + 1 : names.index("annotator")], True)
        for key, value in row.items():
            if key not in _OWN and value not in (None, "", [], {}):
                kinds.setdefault(key, set()).add(_kind(value))
    if not picture:
        raise DataError(
            f"A column with the addresses of pictures was expected in {file}.",
            f"Its columns are {listed(kinds, 10) or 'empty'}.",
            "Export a project that labels pictures.",
        )
    kinds.pop(picture, None)
    if any(key in kinds for key in ordered):
        kinds = {key: kinds[key] for key in ordered if key in kinds}
    shapes = [key for key, found in kinds.items() if "shape" in found]
    boxes = [key for key, found in kinds.items() if "box" in found] or shapes[:1]
    lists = [key for key, found in kinds.items() if "choices" in found and key not in boxes]
    texts = [key for key, found in kinds.items() if found == {"text"} and (key not in _DATA or len(kinds) == 1)]
    whole = lists or texts
    return picture, [*boxes, *whole]


def _kind(value: Any) -> str:
    """What a cell is: text, choices, a box (a shape with labels of its own), or a shape with choices at most."""
    parts = value if isinstance(value, list) else [value]
    found = [part for part in parts if isinstance(part, Mapping)]
    if any(names_in(part.get(key)) for part in found for key in SHAPES):
        return "box"
    if any(is_shape(part) for part in found):
        return "shape"
    if any("choices" in part for part in found):
        return "choices"
    if isinstance(value, str):
        return "text"
    return "choices" if parts and all(isinstance(part, str) for part in parts) else "other"


def _labels(value: Any) -> Iterator[_Label]:
    """Labels of a cell: a text, several choices, or shapes with labels."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str) and part.strip():
            yield part, None
        elif isinstance(part, Mapping):
            area = area_of(part, part) if is_shape(part) else None
            if area is None and is_shape(part):
                continue
            keys = ("choices",) if area is None else (*SHAPES, "choices")
            named = next((names for key in keys if (names := names_in(part.get(key)))), [])
            yield from ((name, area) for name in named)


def _rows_of_json(file: Path) -> Iterator[_Row]:
    return (row for row in json_items(file) if isinstance(row, Mapping))


def _rows_of_csv(file: Path) -> Iterator[_Row]:
    """Rows with cells that are JSON decoded."""
    limit = csv.field_size_limit(1 << 30)  # a cell holds all shapes of a picture; the limit is that of the process
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = "\t" if "\t" in stream.readline() else ","
            stream.seek(0)
            for row in csv.DictReader(stream, delimiter=delimiter):
                yield {key: _decoded(cell) for key, cell in row.items() if isinstance(key, str)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            f"A table of Label Studio was expected at {file}.",
            f"It cannot be read ({reason}).",
            "Export it again from Label Studio.",
        ) from error
    finally:
        csv.field_size_limit(limit)


def _decoded(cell: object) -> Any:
    """A cell's value: JSON where it is a list or an object, else its text."""
    if not isinstance(cell, str):
        return ""
    if cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _columns(beginning: str) -> list[str]:
    first = beginning.partition("\n")[0].rstrip("\r")
    try:
        return next(csv.reader([first], delimiter="\t" if "\t" in first else ","), [])
    except csv.Error:  # another table, with line breaks of its own
        return []


LABEL_STUDIO_MIN = Reader("label-studio-min", "Label Studio JSON-MIN", looks_like_json, read_json)
LABEL_STUDIO_CSV = Reader("label-studio-csv", "Label Studio CSV", looks_like_csv, read_csv)
