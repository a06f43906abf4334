"""Class names by number, as annotation files of several formats have them."""

from collections.abc import Sequence
from pathlib import Path

from lensmith.data.annotations.reader import damaged
from lensmith.errors import DataError


def read_names(file: Path) -> list[str]:
    """The lines of a text file in UTF-8 without those that are empty at its end.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise damaged(
            f"Text of annotations in UTF-8 was expected in {file}.",
            f"It cannot be read ({reason}).",
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def name_of(number: str, names: Sequence[str], file: Path | str) -> str:
    """The class name of a number from 0.

    Raises:
        DataError: there is no class of that number.
    """
    if not (number.isascii() and number.isdecimal() and int(number) < len(names)):
        raise DataError(
            f"Numbers of the {len(names):,} classes, from 0, were expected in {file}.",
            f"{number[:40]!r} is there.",
            "Give the list of classes that belongs to these annotations.",
        )
    return names[int(number)]
