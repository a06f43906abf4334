"""A table of labelled images: a CSV of path,label[,split][,group][,annotator], as tools and people write it.

`data.table_cells` reads its columns. A line that cannot be used is set aside with its number.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lensmith.core.junk import is_below_junk
from lensmith.core.labels import canonical_label
from lensmith.core.text import listed
from lensmith.data.annotation import Annotation
from lensmith.data.consensus import Contested
from lensmith.data.files import SetAside, unusable_reason
from lensmith.data.part_names import parts_of_names
from lensmith.data.table_cells import COLUMNS, read_cells
from lensmith.imaging.crops import picture_of

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
    cells = read_cells(file)
    table.notes += cells.notes
    paths: dict[str, str] = {}  # of which several lines may name one
    for number, row in cells.rows:
        path, label, split, group, fold, who = (cells.cell(row, meaning) for meaning in COLUMNS)
        surplus = any(cell.strip() for cell in row[len(cells.titles) :])
        if path not in paths:
            paths[path] = path_below(root, path)
        yield _Line(number, paths[path], label, split.strip(), group.strip(), who.strip(), surplus, fold.strip())


def path_below(folder: Path, cell: str) -> str:
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
