"""What a reader of an annotation format is: `looks_like` finds its files, `read` yields what they say of each picture.

A reader knows its format and nothing else. Pictures on disk, boxes, parts and several annotators are the business of
`data.annotations.assemble`, which is the same for all formats.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lensmith.data.annotations.json_stream import json_head
from lensmith.data.part_names import parts_of_names
from lensmith.errors import DataError

PEEKED_FILES = 20
"""Files of one kind that are opened to find out a format: folders may hold one small file for each picture."""
HEAD_BYTES = 1 << 16
"""Bytes that are read of a file to find out its format."""


class Area(NamedTuple):
    """A box in a picture as an annotation has it: left, top, right and bottom edge.

    Edges are in pixels of the upright picture, from 0 at the left and top edge to width and height at the others; or
    shares of width and height (0 to 1) where `is_share` is set.
    """

    left: float
    top: float
    right: float
    bottom: float
    is_share: bool = False


class Entry(NamedTuple):
    """What an annotation file says of a picture: one label, or none.

    Attributes:
        picture: path of the picture as the file has it, with / as separator; it may lack the ending.
        label: name of the class; None where the picture is named without a label.
        area: the part of the picture that the label is for; None: the whole picture.
        size: width and height of the picture in pixels, as the file has them; None where it does not tell.
        subset: name of the subset, as `train` or `default`; may be empty.
        annotator: who gave the label; may be empty.
        others: further names under which the picture may lie on disk, such as one with flattened folders.
        attributes: name and value of each attribute of the label, of tools that have such.
        group: name of the picture's group; may be empty.
    """

    picture: str
    label: str | None
    area: Area | None = None
    size: tuple[int, int] | None = None
    subset: str = ""
    annotator: str = ""
    others: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Look:
    """What a reader found at a source.

    Attributes:
        files: files of its format, relative to the source's root; empty where there is none.
        lacks: sentence on what is missing where files come close to the format; empty otherwise.
    """

    files: tuple[str, ...] = ()
    lacks: str = ""


@dataclass
class Reading:
    """Remarks that a reader makes while it reads.

    Attributes:
        notes: sentences about how the files were read.
        warnings: sentences about what is left out or doubtful.
    """

    notes: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Reader:
    """A reader of one annotation format.

    Attributes:
        name: name of the format for `--format`.
        title: name of the format in messages.
        looks_like: function that looks cheaply, by names and beginnings of files, whether a source has the format.
        read: function that yields entries of the files that `looks_like` found; it adds remarks to the `Reading`,
            and raises DataError on a file that is damaged.
    """

    name: str
    title: str
    looks_like: Callable[["Source"], Look]
    read: Callable[["Source", Sequence[str], Reading], Iterable[Entry]]


class Source:
    """A folder with annotations, or one file of them; what its top level holds is listed once for all readers.

    Attributes:
        path: the path that the user gave.
        root: folder of the pictures, to which paths of files are relative.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = ""
        self.root = path if path.is_dir() else path.parent
        if self.root != path and path.suffix.lower() not in (".yaml", ".yml"):  # which describe their folder
            if path.absolute().parent.name.lower() == "annotations":
                self.root = path.absolute().parent.parent
            self._file = path.absolute().relative_to(self.root.absolute()).as_posix()
        self._heads: dict[str, str] = {}
        self._json: dict[str, Any] = {}

    @cached_property
    def _top(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the files and of the folders at the top, without hidden ones, sorted."""
        if self._file:
            return (self._file,), ()
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and (entry.is_dir() or entry.is_file()):  # pipes never end
                        (folders if entry.is_dir() else files).append(entry.name)
        except OSError as error:
            raise DataError(
                f"A folder of labelled images was expected at {self.root}.",
                f"It cannot be opened ({error.strerror}).",
                "Check its permissions.",
            ) from error
        return tuple(sorted(files)), tuple(sorted(folders))

    @cached_property
    def part_folders(self) -> tuple[str, ...]:
        """Folders at the top that have the name of a part, as `train`, each of which may hold annotations."""
        return tuple(sorted(parts_of_names(self.folders)))

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders at the top; none where the source is a file."""
        return self._top[1]

    def files(self, *suffixes: str, folder: str = "") -> tuple[str, ...]:
        """Files with one of the suffixes (in lower case), relative to the root, sorted.

        Args:
            suffixes: endings as `.json`.
            folder: a folder below the root, as `annotations`, that need not be there; by default the root itself.
        """
        if not folder:
            names: Iterable[str] = self._top[0]
        elif folder.partition("/")[0] not in self.folders:
            return ()
        else:
            try:
                names = sorted(entry.name for entry in os.scandir(self.root / folder) if entry.is_file())
            except OSError:  # not there, or closed
                return ()
        beginning = f"{folder}/" if folder else ""
        return tuple(beginning + name for name in names if name.lower().endswith(suffixes) and not name.startswith("."))

    def beginning(self, file: str) -> str:
        """The first `HEAD_BYTES` bytes of a file as text; empty where it cannot be read."""
        if file not in self._heads:
            try:
                with (self.root / file).open("rb") as stream:
                    head = stream.read(HEAD_BYTES)
                is_wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
                self._heads[file] = head.decode("utf-16" if is_wide else "utf-8-sig", "replace")
            except OSError:
                self._heads[file] = ""
        return self._heads[file]

    @cached_property
    def _json_files(self) -> tuple[str, ...]:
        """JSON files at the top, in `annotations` and in folders of parts."""
        folders = [folder for folder in self.folders if folder.lower() == "annotations"]
        inside = [self.files(".json", folder=folder) for folder in (*folders, *self.part_folders)]
        return (*self.files(".json"), *(file for files in inside for file in files))

    def json_head(self, file: str) -> Any:
        """The content of a JSON file as far as its first bytes tell; None where they are no JSON."""
        if file in self._json:
            return self._json[file]
        head = json_head(self.root / file, HEAD_BYTES)
        if len(self._json) < PEEKED_FILES:
            self._json[file] = head
        return head

    @property
    def json_heads(self) -> dict[str, Any]:
        """The first JSON files → their content as far as the first bytes tell."""
        return {file: self.json_head(file) for file in self._json_files[:PEEKED_FILES]}

    def json_files(self, is_wanted: Callable[[Any], bool]) -> tuple[str, ...]:
        """JSON files of one form; none where none of the first is, so that other files by the thousand cost nothing.

        Args:
            is_wanted: function that tells whether a file's content, as far as the first bytes tell, has the form.
        """
        return self._alike(self._json_files, lambda file: is_wanted(self.json_head(file)))

    def files_alike(self, suffix: str, is_wanted: Callable[[str], bool], folder: str = "") -> tuple[str, ...]:
        """Files with a suffix whose text has one form; none where none of the first has.

        Args:
            suffix: ending as `.xml`.
            is_wanted: function that tells whether the beginning of a file has the form.
            folder: a folder below the root; by default the root itself.
        """
        return self._alike(self.files(suffix, folder=folder), lambda file: is_wanted(self.beginning(file)))

    @staticmethod
    def _alike(files: Sequence[str], is_wanted: Callable[[str], bool]) -> tuple[str, ...]:
        first = [file for file in files[:PEEKED_FILES] if is_wanted(file)]
        return (*first, *filter(is_wanted, files[PEEKED_FILES:])) if first else ()

    def walk(self, folder: str, suffix: str) -> Iterator[str]:
        """Files below a folder at any depth with a suffix (in lower case), relative to the root, in order."""
        for base, folders, names in os.walk(self.root / folder):
            folders.sort()
            below = Path(base).relative_to(self.root).as_posix()
            for name in sorted(names):
                if name.lower().endswith(suffix) and not name.startswith("."):
                    yield name if below == "." else f"{below}/{name}"


def damaged(expected: str, arrived: str) -> DataError:
    """The error for an annotation file that is not as its tool writes it."""
    return DataError(expected, arrived, "Export the annotations again.")
