"""Work lists: a CSV of pictures to look at, with what a program or several people think of them.

Columns: `path` (relative to the CSV's folder), and as far as known `label`, `suggested`, `confidence`, `score`,
`reason`, `split`, `group`, `fold`, `annotator`; and `votes` (`anna: cat; bob: dog`) as `lensmith data agreement` writes
them. A picture that stands on several lines, one for each annotator, is one item.
"""

import math
import os
from collections import defaultdict
from functools import cache
from pathlib import Path

from lensmith.core.labels import canonical_label, require_distinct
from lensmith.core.text import listed
from lensmith.curation.reviewing.items import Kind, ReviewItem, ReviewSource
from lensmith.data.path_list import columns_of, read_path_list
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of

TITLES = {
    "suspects": "labels that may be wrong",
    "contested": "pictures that people label differently",
    "next": "pictures to label next",
}
"""Stem of a work list that lensmith writes → what its pictures are."""

_canonical = cache(canonical_label)

_EXPECTED = "A CSV with a column `path` was expected at {}."
_OWN = {"suggested", "score", "reason"}


def is_work_list(file: Path) -> bool:
    """Whether a CSV has columns that only a work list has, names annotators, or has lines without a label."""
    columns = columns_of(file)
    if "path" not in columns or columns & {*_OWN, "annotator"} or "label" not in columns:
        return "path" in columns
    return any(not row.get("label", "").strip() for _, row in read_path_list(file, _EXPECTED.format(file)).rows)


def read_work_list(file: Path) -> ReviewSource:
    """Read a work list; it keeps its order.

    Raises:
        DataError: a file that is no such list, a score that is no number, or labels that look alike.
    """
    expected = _EXPECTED.format(file)
    found = read_path_list(file, expected)
    if not (columns := set(found.columns)):
        raise DataError(expected, f"Its first line is {found.first_line[:200] or 'empty'}.", "Name its columns there.")
    lines: dict[str, list[dict[str, str]]] = defaultdict(list)
    missing = []
    around = f"{file.parent.absolute()}{os.sep}"
    for _, row in found.rows:
        name = _path(around, row["path"])
        if not _is_there(around, name):
            missing.append(row["path"])
        else:
            lines[name].append(row)
    items = tuple(_item(name, same, file) for name, same in lines.items())
    named = {label for item in items for label in (item.label, item.suggested, *(each for _, each in item.named))}
    labels = tuple(sorted(named - {""}))
    require_distinct(labels, file)
    notes = (f"Pictures of the list that are not there: {len(missing):,} ({listed(missing, 3)}).",) if missing else ()
    is_list = bool(columns & _OWN) or "label" not in columns
    kind: Kind = "set" if not is_list else "list" if any(item.label or item.named for item in items) else "new"
    title = TITLES.get(file.stem, "a list of pictures") if is_list else "a labelled set"
    return ReviewSource(file, file.parent, kind, title, items, labels, notes)


def _path(around: str, cell: str) -> str:
    """The path of a line as other tables write it, so that one picture has one name."""
    path = os.path.normpath(cell.strip().replace("\\", "/"))
    return path.removeprefix(around).replace(os.sep, "/")


def _is_there(around: str, name: str) -> bool:
    """Whether a path, or what it is a crop of, is a file."""
    path = os.path.join(around, name)  # noqa: PTH118 - a tenth of pathlib's time for a hundred thousand lines
    return os.path.isfile(path if "#xywh=" not in name else picture_of(Path(path)))  # noqa: PTH113


def _item(name: str, lines: list[dict[str, str]], file: Path) -> ReviewItem:
    def first(column: str) -> str:
        return next((found for line in lines if (found := (line.get(column) or "").strip())), "")

    named = [
        ((line.get("annotator") or "").strip(), label)
        for line in lines if (label := _canonical(line.get("label") or ""))
    ]  # fmt: skip
    for vote in first("votes").split("; "):
        who, colon, label = vote.partition(": ")
        if colon and _canonical(label):
            named.append((who.strip(), _canonical(label)))
    labels = {label for _, label in named}
    return ReviewItem(
        path=name,
        label=labels.pop() if len(labels) == 1 else "",
        suggested=_canonical(first("suggested")),
        confidence=_number(first("confidence"), "confidence", name, file),
        score=_number(first("score"), "score", name, file),
        reason=first("reason"),
        named=tuple(named) if any(who for who, _ in named) or len(labels) > 1 else (),
        split=first("split"),
        group=first("group"),
        fold=first("fold"),
    )


def _number(text: str, column: str, name: str, file: Path) -> float | None:
    """A cell's number; None where it is empty or no finite one.

    Raises:
        DataError: the cell holds something else.
    """
    try:
        number = float(text or "nan")
    except ValueError as error:
        raise DataError(
            f"Numbers were expected in the column `{column}` of {file}.",
            f"{text!r} arrived for {name}.",
            "Correct it, or leave the column out.",
        ) from error
    return number if math.isfinite(number) else None
