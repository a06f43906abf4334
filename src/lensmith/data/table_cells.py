"""The cells of a table of labelled images, and what its columns mean.

Commas, semicolons, tabs and bars separate columns; columns go by the names in common use.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.labels import canonical_label
from lensmith.core.text import listed
from lensmith.data.part_names import parts_of_names
from lensmith.data.wide_table import annotator_columns
from lensmith.errors import DataError
from lensmith.imaging.formats import SUFFIXES

COLUMNS = {
    "path": (
        "path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name", "image_name", "file",
        "image", "img", "images",
    ),
    "label": ("label", "class", "class_name", "label_name", "category", "target", "labels", "classes", "species"),
    "split": ("split", "part", "subset", "partition", "set"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id"),
    "fold": ("fold", "cv_fold", "kfold"),
    "annotator": (
        "annotator", "annotator_id", "annotated_by", "completed_by", "worker", "worker_id", "workerid", "rater",
        "rater_id", "reviewer", "labeler", "labeller", "labeled_by", "user", "user_id",
    ),
}  # fmt: skip
"""Meaning of a column → the names it may have, in lower case; the first is the one that lensmith writes."""

Row = Sequence[str]


@dataclass(frozen=True)
class TableCells:
    """The cells of a table.

    Attributes:
        titles: names of the columns, as they stand in the first line.
        columns: meaning, one of `COLUMNS` → index of its column.
        rows: number, from 1, and cells of each further line that is not blank.
        notes: a sentence on how the columns are read, where not all are used under their own names.
    """

    titles: Row
    columns: Mapping[str, int]
    rows: Sequence[tuple[int, Row]]
    notes: tuple[str, ...]

    def cell(self, row: Row, meaning: str) -> str:
        """The cell of a row in the column of a meaning; empty where there is none."""
        return _cell(row, self.columns.get(meaning))


def read_cells(file: Path, *, need_labels: bool = True) -> TableCells:
    """Read the cells of a table.

    Args:
        file: the CSV.
        need_labels: whether a table with paths alone is refused.

    Raises:
        DataError: the file is no text, or its first line does not name the columns.
    """
    try:
        text = decoded(file.read_bytes())
        delimiter, names = header(text)
        columns = _columns(file, names)
        rows = [(number, row) for number, row in lines_of(text, delimiter) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            f"A folder of labelled images, or a CSV of path,label, was expected at {file}.",
            f"The file cannot be read as one ({reason}).",
            "Save the table as CSV in UTF-8, or give a folder; an archive must be unpacked first.",
        ) from error
    titles, further = (rows[0][1], rows[1:]) if rows else ([], [])
    if "split" not in columns:
        own = [index for meaning, index in columns.items() if meaning != "group"]
        columns |= _column_of_parts(file, names, own, [row for _, row in further])
        if columns.get("group", -1) == columns.get("split"):  # a column called group that holds parts
            del columns["group"]
    if "path" in columns and not {"label", "annotator"} & columns.keys():
        people = annotator_columns(titles, columns.values(), [row for _, row in further])
        if people:
            return _of_wide_table(titles, columns, further, people)
    if "path" not in columns or (need_labels and "label" not in columns):
        is_data = any(Path(name).suffix in SUFFIXES for name in names)
        why = ", and looks like an image's line already" if is_data else ""
        raise DataError(
            _expected(file),
            f"Its first line has {text.partition(chr(10))[0].strip()[:200] or 'nothing'}{why}.",
            "Name the columns in the first line: path,label, or path,label,annotator for labels of several people.",
        )
    return TableCells(titles, columns, further, tuple(_columns_note(names, columns, delimiter)))


def _of_wide_table(
    titles: Row, columns: Mapping[str, int], rows: Sequence[tuple[int, Row]], people: Sequence[int]
) -> TableCells:
    """The cells of a table with a column for each annotator, as if each label had a line."""
    width = len(titles)
    lines: list[tuple[int, Row]] = []
    for number, row in rows:
        own, surplus = [*row[:width], *[""] * (width - len(row))], row[width:]
        given = [(own[index], titles[index]) for index in people if own[index].strip()] or [("", "")]
        lines += [(number, [*own, label, who, *surplus]) for label, who in given]
    note = f"Columns of the table with the labels of one annotator each: {listed(titles[index] for index in people)}."
    return TableCells(
        [*titles, "label", "annotator"], {**columns, "label": width, "annotator": width + 1}, lines, (note,)
    )


def lines_of(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line; a quote may follow a blank, as in `"1.jpg", "cat"`."""
    is_blank_before_quote = re.search(rf'{re.escape(delimiter)} +"', text) is not None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=is_blank_before_quote)
    for row in reader:
        yield reader.line_num, row


def decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with a byte-order mark, as spreadsheets write it."""
    is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff")) and not len(content) % 2
    return content.decode("utf-16" if is_wide else "utf-8-sig")


def header(text: str) -> tuple[str, list[str]]:
    """The separator, by which the first line names most known columns, and the columns in the form `class_name`."""
    known = {name for names in COLUMNS.values() for name in names}

    def columns(delimiter: str) -> list[str]:
        _, first = next(lines_of(text, delimiter), (0, []))
        return [re.sub("[ -]", "_", canonical_label(column).lower()) for column in first]

    found = [(delimiter, columns(delimiter)) for delimiter in ",;\t|"]
    return max(found, key=lambda each: len(known.intersection(each[1])))


def _columns(file: Path, names: Sequence[str]) -> dict[str, int]:
    """Meaning → index of its column, of those that are there.

    Raises:
        DataError: several columns can be the one of a meaning.
    """
    found = {}
    for meaning, aliases in COLUMNS.items():
        present = [name for name in aliases if name in names]
        if meaning in present:
            present = [meaning]
        if meaning == "annotator" and len(present) > 1:  # whom only `data agreement` needs; a note names the columns
            continue
        if len(present) > 1 or any(names.count(name) > 1 for name in present):
            raise DataError(
                _expected(file),
                f"Several of its columns can be the {meaning}: {listed(present)}.",
                f"Name the one that is meant {meaning!r}, and the others differently.",
            )
        if present:
            found[meaning] = list(names).index(present[0])
    return found


def _expected(file: Path) -> str:
    return f"A CSV with the columns path,label (and perhaps split) was expected in {file}."


def _column_of_parts(
    file: Path, names: Sequence[str], used: Collection[int], rows: Sequence[Sequence[str]]
) -> dict[str, int]:
    """The column that has nothing but the names of parts, of which there are several, whatever it is called.

    Raises:
        DataError: there are several such columns.
    """
    found = []
    for index in set(range(len(names))) - set(used):
        values = {_cell(row, index).strip() for row in rows} - {""}
        parts = parts_of_names(values)
        if parts.keys() == values and len(set(parts.values())) > 1:
            found.append(index)
    if len(found) > 1:
        raise DataError(
            f"One column of parts at most was expected in {file}.",
            f"Several of its columns can be the split: {listed(names[index] for index in found)}.",
            "Name the one that is meant 'split'.",
        )
    return {"split": found[0]} if found else {}


def _columns_note(names: Sequence[str], columns: dict[str, int], delimiter: str) -> Iterator[str]:
    """A note on how columns are read, where not all are used under their own names."""
    unused = [name for index, name in enumerate(names) if name and index not in columns.values()]
    if unused == ["bytes"]:  # as in a run's own table
        unused = []
    if unused or delimiter != "," or any(names[index] != meaning for meaning, index in columns.items()):
        used = listed(f"{names[index]} as {meaning}" for meaning, index in columns.items())
        yield f"Columns of the table: {used}{f'; not used: {listed(unused)}' if unused else ''}."


def _cell(row: Row, column: int | None) -> str:
    return "" if column is None or column >= len(row) else row[column]
