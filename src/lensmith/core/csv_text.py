"""CSV as lensmith writes it: UTF-8 with commas and line feeds, paths relative to the folder of the file."""

import csv
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lensmith.errors import OutputError, SettingsError


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]], optional: Collection[str] = ()) -> str:
    """A table as CSV.

    Args:
        columns: names of the columns.
        rows: one cell for each column.
        optional: names of columns that are left out where no row has anything in them.
    """
    rows = list(rows)
    if optional:
        used = [at for at, name in enumerate(columns) if name not in optional or any(row[at] != "" for row in rows)]
        columns, rows = [columns[at] for at in used], [[row[at] for at in used] for row in rows]
    lines: list[str] = []
    # A writer quotes carriage returns only where they end lines (Python 3.11, 3.12).
    sink = SimpleNamespace(write=lambda line: lines.append(line.removesuffix("\r\n") + "\n"))
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return "".join(lines)


def paths_from(root: Path, folder: Path) -> Callable[[str], str]:
    """A function that makes paths below `root` relative to `folder`, with / as separator; absolute ones stay."""
    between = Path(os.path.relpath(os.path.realpath(root), os.path.realpath(folder)))
    # Joined to an absolute path, `between` has no effect.
    return lambda path: Path(os.path.normpath(between / path)).as_posix()


def require_csv_name(out: Path, option: str) -> None:
    """Refuse an output that is not named like a CSV.

    Args:
        out: path of the output.
        option: option or argument that gives it, as `--out`.

    Raises:
        SettingsError: the name does not end in .csv.
    """
    if out.suffix.lower() != ".csv":
        raise SettingsError(
            f"A file that ends in .csv was expected as {option}, since it is a CSV.",
            f"{out} arrived.",
            f"Name it {out.with_suffix('.csv').name if out.name else 'labels.csv'}.",
        )


def is_same_file(path: Path, text: str) -> bool:
    """Whether a file holds just this text."""
    return path.is_file() and path.read_bytes() == text.encode("utf-8", "surrogateescape")


def require_free(path: Path, text: str | None, overwrite: bool) -> None:
    """Refuse to replace a file with other content, unless the user allows it.

    Args:
        path: path of the file.
        text: text to write; None if it is not computed yet.
        overwrite: whether another file may be replaced. Anything but a file may not.

    Raises:
        OutputError: something else is there.
    """
    if path.exists() and not (overwrite and path.is_file()) and (text is None or not is_same_file(path, text)):
        raise OutputError(
            f"A free path was expected for {path}.",
            f"{'A file with other content' if path.is_file() else 'Something else'} is there.",
            "Replace it with --overwrite, or name another.",
        )
