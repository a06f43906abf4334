"""Image files below a folder, found by name and size alone; no file is opened."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lensmith.imaging.decoding import SUFFIXES

SetAside = list[tuple[str, str]]
"""Path relative to the root, and reason, of each file that cannot be used."""


def visible_entries(folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted by name, without hidden ones.

    Raises:
        OSError: the folder cannot be opened.
    """
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def image_files(root: Path, folder: Path, aside: SetAside, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below `folder` that can be images, in order; all others are added to `aside`.

    Args:
        root: folder that paths in `aside` are relative to.
        folder: folder to search, at any depth; links to folders are followed.
        aside: list that receives the files that cannot be used.
        above: real paths of the parent folders, which links must not lead back to.
    """
    above |= {os.path.realpath(folder)}
    try:
        found = visible_entries(folder)
    except OSError as error:
        aside.append((relative(folder, root), f"cannot be opened ({error.strerror})"))
        return
    for entry in found:
        if printable(entry.name) != entry.name:
            aside.append((relative(entry, root), "its name is not UTF-8"))
        elif entry.is_dir():
            if os.path.realpath(entry) in above:
                aside.append((relative(entry, root), "a link to a folder around it"))
            else:
                yield from image_files(root, entry, aside, above)
        elif reason := unusable_reason(entry):
            aside.append((relative(entry, root), reason))
        else:
            yield entry


def unusable_reason(file: Path, any_suffix: bool = False) -> str | None:
    """The reason why a file cannot be an image, from its name and size alone; None if it can be one."""
    if not any_suffix and file.suffix.lower() not in SUFFIXES:
        return f"not an image ({file.suffix or 'no ending'})"
    try:
        found = file.stat()
    except FileNotFoundError:
        return "a link to nothing" if file.is_symlink() else "there is no such file"
    except (OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
        return "not a file"
    return None if found.st_size else "empty"


def relative(path: Path, root: Path) -> str:
    """`path` relative to `root`, with / as separator, and printable whatever bytes it has."""
    return printable(path.relative_to(root).as_posix())


def printable(name: str) -> str:
    """A name with all bytes escaped that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()
