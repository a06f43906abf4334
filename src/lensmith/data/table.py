"""A table of labelled images: a CSV of path,label[,split][,group][,annotator], as tools and people write it.

Commas, semicolons, tabs and bars separate columns; columns go by the names in common use. A line that cannot be used is
set aside with its number.
"""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lensmith.core.junk import is_below_junk
from lensmith.core.labels import canonical_label
from lensmith.core.text import listed
from lensmith.data.annotation import Annotation
from lensmith.data.consensus import Contested
from lensmith.data.files import SetAside, unusable_reason
from lensmith.data.part_names import parts_of_names
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of
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

_FOLD = re.compile(r"\d{1,4}(\.0)?", re.ASCII)
"""A fold as tables have it: spreadsheets write whole numbers with a decimal where a cell is empty."""


@dataclass
class Table:
    """Lines of a table.

    Attributes:
        rows: annotation of each line that can be used, in the order of the lines; several may be of one image.
        numbers: number of each of these lines, from 1.
        aside: path and reason of each other line.
        notes: sentences about how the table was read.
        warnings: sentences about lines that are left out though they name images.
        folds: path → number of its cross-validation fold.
    """

    rows: list[Annotation] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    aside: SetAside = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    folds: dict[str, int] = field(default_factory=dict)

    def unresolved(self, contested: Iterable[Contested]) -> SetAside:
        """Path and reason of what a consensus leaves out: contested images, and lines that say the same again.

        Args:
            contested: images without a consensus of these rows.
        """
        reasons = {each.path: each.reason for each in contested}
        lines: dict[str, list[int]] = {path: [] for path in reasons}
        seen, again = set(), []
        for row, number in zip(self.rows, self.numbers, strict=True):
            if row.path in lines:
                lines[row.path].append(number)
            elif (row.path, row.annotator) in seen:
                again.append((row.path, f"named before (line {number})"))
            seen.add((row.path, row.annotator))
        return again + [(path, f"{reasons[path]} (lines {listed(numbers)})") for path, numbers in lines.items()]


@dataclass(frozen=True)
class _Line:
    number: int
    path: str
    label: str
    split: str
    group: str
    annotator: str
    has_surplus: bool
    fold: str = ""


def read_table(file: Path, root: Path, *, need_files: bool = True) -> Table:
    """Read a table line by line.

    Args:
        file: the CSV.
        root: folder that its paths are relative to.
        need_files: whether lines are set aside that name no image file which is there.

    Raises:
        DataError: the file is no text, or its first line does not name the columns.
    """
    table = Table()
    lines = list(_read_lines(file, root, table))
    parts = parts_of_names({line.split for line in lines if line.split})
    split_used = any(line.split for line in lines)
    folds_used = any(line.fold for line in lines)
    depth = _shared_depth([line.path for line in lines if line.path])
    for line in lines:
        if not line.path or not canonical_label(line.label):
            reason: str | None = "path or label is empty"
        elif line.has_surplus:
            reason = "it has more cells than there are columns, as where a label with a comma is not quoted"
        elif line.split and line.split not in parts:
            reason = f"its split {line.split!r} is none of train, val, test"
        elif split_used and not line.split:
            reason = "it has no split, though other lines have one"
        elif line.fold and not _FOLD.fullmatch(line.fold):
            reason = f"its fold {line.fold!r} is no number from 0 on"
        elif folds_used and not line.fold and parts.get(line.split) != "test":
            reason = "it has no fold, though other lines have one"
        elif is_below_junk(Path(line.path).parts[depth:]):
            reason = "a file of a system or program by its name, or in such a folder"
        elif control := next((each for each in line.label.strip() if each < " "), None):
            reason = f"its label holds a control character (U+{ord(control):04X}), as after a quote that is not closed"
        else:
            reason = unusable_reason(root / line.path, any_suffix=True) if need_files else None
        if reason:
            table.aside.append((line.path or file.name, f"{reason} (line {line.number})"))
        else:
            part = parts.get(line.split)
            table.rows.append(Annotation(line.path, line.label, part, line.group, line.annotator))
            table.numbers.append(line.number)
            if line.fold and part != "test":
                table.folds[line.path] = int(float(line.fold))
    table.warnings += _warnings(table)
    return table


def _shared_depth(paths: Sequence[str]) -> int:
    """Number of folders that all paths have in common: where a set lies is no matter of its files' names."""
    try:
        return len(Path(os.path.commonpath(list(map(os.path.dirname, paths)))).parts)
    except ValueError:  # no paths, or relative ones beside absolute ones
        return 0


def _warnings(table: Table) -> Iterator[str]:
    """A sentence on the lines that are left out, if there are any."""
    reasons = Counter(reason.rpartition(" (line")[0] for _, reason in table.aside)
    if reasons:
        commonest = [f"{count:,} {reason}" for reason, count in reasons.most_common()]
        yield f"Lines of the table that are left out: {len(table.aside):,} ({listed(commonest, 3, '; ')})."


def _read_lines(file: Path, root: Path, table: Table) -> Iterator[_Line]:
    """The lines of a CSV, with paths as they are below `root` (`b` for `a/../b`)."""
    try:
        text = _decoded(file.read_bytes())
        delimiter, names = _header(file, text)
        columns = _columns(file, names, text.partition("\n")[0].strip())
        rows = [(number, row) for number, row in _rows(text, delimiter) if any(cell.strip() for cell in row)][1:]
        if "split" not in columns:
            own = [index for meaning, index in columns.items() if meaning != "group"]
            columns = {**columns, **_column_of_parts(file, names, own, [row for _, row in rows])}
            if columns.get("group", -1) == columns.get("split"):  # a column called group that holds parts
                del columns["group"]
        table.notes += _columns_note(names, columns, delimiter)
        paths: dict[str, str] = {}  # of which several lines may name one
        for number, row in rows:
            path, label, split, group, fold, who = (_cell(row, columns.get(column)) for column in COLUMNS)
            surplus = any(cell.strip() for cell in row[len(names) :])
            if path not in paths:
                paths[path] = _path(root, path)
            yield _Line(number, paths[path], label, split.strip(), group.strip(), who.strip(), surplus, fold.strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            f"A folder of labelled images, or a CSV of path,label, was expected at {file}.",
            f"The file cannot be read as one ({reason}).",
            "Save the table as CSV in UTF-8, or give a folder; an archive must be unpacked first.",
        ) from error


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line; a quote may follow a blank, as in `"1.jpg", "cat"`."""
    is_blank_before_quote = re.search(rf'{re.escape(delimiter)} +"', text) is not None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=is_blank_before_quote)
    for row in reader:
        yield reader.line_num, row


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with a byte-order mark, as spreadsheets write it."""
    is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff")) and not len(content) % 2
    return content.decode("utf-16" if is_wide else "utf-8-sig")


def _header(file: Path, text: str) -> tuple[str, list[str]]:
    """The separator, by which the first line names most known columns, and the columns in the form `class_name`."""
    known = {name for names in COLUMNS.values() for name in names}

    def columns(delimiter: str) -> list[str]:
        _, first = next(_rows(text, delimiter), (0, []))
        return [re.sub("[ -]", "_", canonical_label(column).lower()) for column in first]

    found = [(delimiter, columns(delimiter)) for delimiter in ",;\t|"]
    return max(found, key=lambda each: len(known.intersection(each[1])))


def _columns(file: Path, names: Sequence[str], first_line: str) -> dict[str, int]:
    """Meaning → index of its column.

    Raises:
        DataError: a column is missing, or several can be the one.
    """
    expected = f"A CSV with the columns path,label (and perhaps split) was expected in {file}."
    found = {}
    for meaning, aliases in COLUMNS.items():
        present = [name for name in aliases if name in names]
        if meaning in present:
            present = [meaning]
        if meaning == "annotator" and len(present) > 1:  # whom only `data agreement` needs; a note names the columns
            continue
        if len(present) > 1 or any(names.count(name) > 1 for name in present):
            raise DataError(
                expected,
                f"Several of its columns can be the {meaning}: {listed(present)}.",
                f"Name the one that is meant {meaning!r}, and the others differently.",
            )
        if present:
            found[meaning] = list(names).index(present[0])
    if not {"path", "label"} <= found.keys():
        is_data = any(Path(name).suffix in SUFFIXES for name in names)
        why = ", and looks like an image's line already" if is_data else ""
        raise DataError(
            expected,
            f"Its first line has {first_line[:200] or 'nothing'}{why}.",
            "Name the columns in the first line, as path,label.",
        )
    return found


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


def _cell(row: Sequence[str], column: int | None) -> str:
    return "" if column is None or column >= len(row) else row[column]


def _path(folder: Path, cell: str) -> str:
    """A path below the folder: as written, else as a file is there without blanks, with /, or in other Unicode form."""
    plain = (cell, cell.strip(), cell.replace("\\", "/"), cell.strip().replace("\\", "/"))
    for written in (*plain, *(unicodedata.normalize(form, plain[-1]) for form in ("NFC", "NFD"))):
        if written.strip() and os.path.lexists(picture_of(folder / written)):
            return _below(folder, written)
    return _below(folder, cell.strip()) if cell.strip() else ""


def _below(folder: Path, written: str) -> str:
    path, around = Path(os.path.normpath(written)), folder.absolute()
    if path.is_absolute() and path.is_relative_to(around):
        path = path.relative_to(around)  # so that one file has one name
    return path.as_posix()
