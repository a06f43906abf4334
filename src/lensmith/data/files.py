"""Image files below a folder, found by name and size alone."""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lensmith.core.junk import count_junk
from lensmith.core.text import listed
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of
from lensmith.imaging.formats import (
    HEAD_BYTES,
    HEIC_EXTRA,
    OTHER_SUFFIXES,
    SUFFIXES,
    ImageFormat,
    identify,
    is_available,
)

SetAside = list[tuple[str, str]]
"""Path relative to the root, and reason, of each file that cannot be used."""

_NOT_UTF8 = "is not UTF-8"


@dataclass
class Unused:
    """What a search finds besides image files.

    Attributes:
        aside: files that cannot be used, each with its reason.
        junk: number of files of systems and programs, by the name under which they are left out.
    """

    aside: SetAside = field(default_factory=list)
    junk: Counter[str] = field(default_factory=Counter)

    def warnings(self) -> list[str]:
        """Sentences on files whose names, or whose folders', are not UTF-8, and on tables that nobody reads."""
        foreign = [path for path, reason in self.aside if reason.endswith(_NOT_UTF8)]
        what = "Files that are left out, since their name or that of their folder is not UTF-8"
        found = [f"{what}: {len(foreign):,} ({listed(foreign, 3)})."] if foreign else []
        tables = [path for path, _ in self.aside if path.lower().endswith((".csv", ".tsv")) and "/" not in path]
        if others := [table for table in tables if table != "splits.csv"]:  # which `lensmith data split` writes anew
            found.append(f"Tables beside the folders, which are not read: {listed(others)}. To use one, give its path.")
        return found


def image_files(root: Path, folder: Path, unused: Unused, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below `folder` that can be images, in order; all others are added to `unused`.

    Args:
        root: folder that paths in `unused` are relative to.
        folder: folder to search, at any depth; links to folders are followed.
        unused: receives the files that cannot be used.
        above: real paths of the parent folders, which links must not lead back to.
    """
    above |= {os.path.realpath(folder)}
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        unused.aside.append((relative(folder, root), f"cannot be opened ({error.strerror})"))
        return
    for entry in found:
        folder_here = is_folder(entry)
        if count_junk(entry, folder_here, unused.junk):
            continue
        if printable(entry.name) != entry.name:
            unused.aside += _files_of_unusable_name(root, entry, folder_here)
        elif folder_here:
            if os.path.realpath(entry) in above:
                unused.aside.append((relative(entry, root), "a link to a folder around it"))
            else:
                yield from image_files(root, entry, unused, above)
        elif reason := unusable_reason(entry):
            unused.aside.append((relative(entry, root), reason))
        else:
            yield entry


def is_folder(entry: Path) -> bool:
    """Whether an entry is a folder, or a link to one; False where that cannot be seen."""
    try:
        return entry.is_dir()
    except OSError:  # a folder that lists its files, and opens none
        return False


def _files_of_unusable_name(root: Path, entry: Path, folder_here: bool) -> SetAside:
    """A file whose name is not UTF-8, or each file of such a folder, with the reason."""
    if not folder_here:
        return [(relative(entry, root), f"its name {_NOT_UTF8}")]
    files = [Path(base, name) for base, _, names in os.walk(entry) for name in sorted(names)]
    return [(relative(file, root), f"the name of its folder {_NOT_UTF8}") for file in files]


def unusable_reason(file: Path, any_suffix: bool = False) -> str | None:
    """The reason why a file cannot be an image, from its name and size alone; None if it can be one."""
    file = picture_of(file)
    suffix = file.suffix.lower()
    form = SUFFIXES.get(suffix)
    if form is not None and not is_available(form) and _is_of_its_suffix(file, form):
        return f"{form.name}: install {HEIC_EXTRA}"
    if form is None and not any_suffix:
        if suffix in OTHER_SUFFIXES:
            return f"{OTHER_SUFFIXES[suffix]}, which is not read: save it as JPEG or PNG"
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


def _is_of_its_suffix(file: Path, form: ImageFormat) -> bool:
    """Whether a file is of the format that its name says; asked only where that one cannot be read here."""
    try:
        with file.open("rb") as stream:
            return identify(stream.read(HEAD_BYTES)) in (form, None)
    except (OSError, ValueError):
        return False


def relative(path: Path, root: Path) -> str:
    """`path` relative to `root`, with / as separator, and printable whatever bytes it has."""
    return printable(path.relative_to(root).as_posix())


def printable(name: str) -> str:
    """A name with all bytes escaped that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def require_exists(path: Path, expected: str, remedy: str = "Check the path.") -> None:
    """Refuse a path at which nothing is.

    Args:
        path: path of a file or folder.
        expected: noun phrase for what it was to be, as `A folder of pictures`.
        remedy: sentence on what to do.

    Raises:
        DataError: nothing is there.
    """
    if not path.exists():
        raise DataError(f"{expected} was expected at {path}.", "Nothing is there.", remedy)


def root_of_table(file: Path) -> Path:
    """Folder that the paths in a CSV are relative to: the CSV's own, or of a run's splits.csv that of its images."""
    description = file.parent / "run.json"
    if file.name != "splits.csv" or not description.is_file():
        return file.parent
    try:
        return Path(json.loads(description.read_text(encoding="utf-8"))["data"]["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The folder of the images was expected in {description}, to which the paths in {file.name} are relative.",
            f"It cannot be read ({type(error).__name__}).",
            "Give the folder of the images instead.",
        ) from error
