"""Lists of pictures: a CSV with a column of paths, or a text with one path on each line.

Separators and names of columns are those of `data.table_cells`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.data.table_cells import COLUMNS, decoded, header, lines_of
from lensmith.errors import DataError

_HEAD_BYTES = 65_536


@dataclass(frozen=True)
class PathList:
    """Lines of a list.

    Attributes:
        columns: name of each column: the first of its names in `COLUMNS`, or else its own in the form `class_name`;
            empty for a text, or a CSV without a column of paths.
        first_line: the first line, for messages.
        rows: number, from 1, and cells by column, of each line with a path.
    """

    columns: tuple[str, ...]
    first_line: str
    rows: Sequence[tuple[int, dict[str, str]]]


def columns_of(file: Path) -> frozenset[str]:
    """Names of a list's columns, as those of `PathList`; empty for what is none."""
    try:
        with file.open("rb") as stream:
            beginning = stream.read(_HEAD_BYTES)
        return frozenset(_named(header(beginning.partition(b"\n")[0].decode("utf-8-sig"))[1]))
    except (OSError, UnicodeDecodeError, csv.Error):
        return frozenset()


def read_path_list(file: Path, expected: str) -> PathList:
    """Read a list; cells are as they stand, with blanks around them.

    Args:
        file: path of the list.
        expected: sentence on what was expected, for errors.

    Raises:
        DataError: the file is no text.
    """
    try:
        text = decoded(file.read_bytes())
        delimiter, names = header(text)
        table = list(lines_of(text, delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            expected, f"It cannot be read ({reason}).", "Check the path, or save it as CSV in UTF-8."
        ) from error
    columns = _named(names)
    if not columns:
        rows = [(number, {"path": line}) for number, line in enumerate(text.splitlines(), 1)]
    else:
        rows = [(number, dict(zip(columns, cells, strict=False))) for number, cells in table[1:]]
    found = [(number, row) for number, row in rows if row.get("path", "").strip()]
    return PathList(columns, text.partition("\n")[0].strip(), found)


def _named(names: Sequence[str]) -> tuple[str, ...]:
    """Columns by the first of their names in COLUMNS; none where no column has paths."""
    known = {}
    for meaning, aliases in COLUMNS.items():
        if present := next((alias for alias in aliases if alias in names), None):
            known[present] = meaning
    return tuple(known.get(name, name) for name in names) if "path" in known.values() else ()
