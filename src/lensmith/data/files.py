"""Which files below a folder can be images, judged by name and size alone; nothing is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lensmith.imaging.decode import SUFFIXES

Aside = list[tuple[str, str]]
"""Files that cannot be used: path relative to the root, reason."""


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name, hidden files and folders left out.

    Raises:
        OSError: the folder cannot be opened.
    """
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def image_files(root: Path, folder: Path, aside: Aside, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below `folder` that can be images, in order; all others go to `aside`.

    Args:
        root: names in `aside` are relative to it.
        folder: where to look, at any depth; links to folders are followed.
        aside: grows by what cannot be used.
        above: real paths of the folders around this one, where a link must not lead back to.
    """
    above |= {os.path.realpath(folder)}
    try:
        found = entries(folder)
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
        elif reason := fault(entry):
            aside.append((relative(entry, root), reason))
        else:
            yield entry


def fault(file: Path, any_ending: bool = False) -> str | None:
    """Why a file cannot be an image, from its name and size alone; None where nothing speaks against it."""
    if not any_ending and file.suffix.lower() not in SUFFIXES:
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
    """`path` as seen from `root`, with / between the parts, printable whatever bytes it has."""
    return printable(path.relative_to(root).as_posix())


def printable(name: str) -> str:
    """A name whose bytes are not UTF-8 with those bytes escaped."""
    return name.encode(errors="backslashreplace").decode()
