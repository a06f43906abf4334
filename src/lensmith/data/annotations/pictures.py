"""Pictures on disk that annotations name: found by path, or by a base name that only one picture has."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lensmith.data.annotations.picture_references import names_in_address
from lensmith.data.files import Unused, image_files
from lensmith.errors import DataError
from lensmith.imaging.formats import SUFFIXES

MANY = 20
"""Pictures of one base name from which on they are told apart by their folder first."""


class Name(NamedTuple):
    """How an annotation names a picture.

    Attributes:
        names: names in order of preference, as the file has them.
        subset: name of the subset, which tells apart pictures of one name in `images/train` and `images/test`.
    """

    names: tuple[str, ...]
    subset: str


class Pictures:
    """The image files below a root.

    Attributes:
        root: the folder.
        paths: path of each image file relative to the root, in order.
        unused: files that cannot be used, and junk.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.unused = root, Unused()
        self._absolute = _folded(root.absolute().as_posix())
        self.paths = [file.relative_to(root).as_posix() for file in image_files(root, root, self.unused)]
        self._exact = {_folded(path): path for path in self.paths}
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_folder: dict[str, Mapping[str, Sequence[str]]] = {}
        for path in self.paths:
            self._by_stem[_stem(_folded(path).rpartition("/")[2])].append(path)

    def find(self, wanted: Iterable[Name]) -> dict[Name, str]:
        """Path of each picture that is there.

        A name fits a path that it ends, or that ends it (`data/train/a.jpg` fits `train/a.jpg`). What is left is found
        by its base name, if one picture has it that no other name fits: where `one/a.jpg` was deleted, `two/a.jpg` is
        not taken in its place.

        Raises:
            DataError: a name that leads out of the root.
        """
        found: dict[Name, str] = {}
        left: list[tuple[Name, list[str]]] = []
        for name in wanted:
            cleaned = [self._cleaned(each) for each in name.names if each.strip()]
            path = next(filter(None, (self._by_path(each, name.subset) for each in cleaned)), None)
            if path is None:
                left.append((name, cleaned))
            else:
                found[name] = path
        taken = set(found.values())
        bases = {each.rpartition("/")[2] for _, cleaned in left for each in cleaned}
        untaken = {base: [path for path in self._of_base_name(base) if path not in taken] for base in bases}
        free: Mapping[Name, list[str]] = {
            name: [path for each in cleaned for path in untaken[each.rpartition("/")[2]][: MANY + 1]]
            for name, cleaned in left
        }
        claims: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name, paths in free.items():
            for path in paths:
                claims[path].add(name.names)
        for name, paths in free.items():
            if len(set(paths)) == 1 and len(claims[paths[0]]) == 1:
                found[name] = paths[0]
        return found

    def find_addresses(self, wanted: Iterable[Name]) -> dict[Name, str]:
        """Path of each picture that is there under a name which a server's address has made of its own.

        Args:
            wanted: names that `find` has not found, as `/data/local-files/?d=a%20b.jpg`, `%C3%BCber` or
                `50d93e20-a_b.jpg`.

        Raises:
            DataError: a name that leads out of the root.
        """
        names = {
            name: Name(tuple(each for written in name.names for each in names_in_address(written)), "")
            for name in wanted
        }
        found = self.find(dict.fromkeys(each for each in names.values() if each.names))
        return {name: found[each] for name, each in names.items() if each in found}

    def _by_path(self, name: str, subset: str) -> str | None:
        """The picture whose path is the name, ends in it, or ends it; None where that is none or several."""
        if (exact := self._exact.get(name)) is not None:
            return exact
        whole = f"/{name}"
        fitting = []
        for path in self._of_two_names(name):
            written = f"/{_folded(path)}" if _has_ending(name) else f"/{_stem(_folded(path))}"
            if written.endswith(whole) or whole.endswith(written):
                fitting.append(path)
        if len(fitting) > 1 and subset:
            fitting = [path for path in fitting if subset in path.split("/")[:-1]] or fitting
        return fitting[0] if len(fitting) == 1 else None

    def _of_base_name(self, name: str) -> Sequence[str]:
        base = name.rpartition("/")[2]
        return _with_ending(self._by_stem.get(_stem(base), ()), base)

    def _of_two_names(self, name: str) -> Sequence[str]:
        """Pictures of the base name, in a folder of the same name where very many have it (`000.jpg` of each video)."""
        folders, _, base = name.rpartition("/")
        stem = _stem(base)
        if not folders or len(self._by_stem.get(stem, ())) <= MANY:
            return self._of_base_name(name)
        if stem not in self._by_folder:
            inside: dict[str, list[str]] = defaultdict(list)
            for path in self._by_stem[stem]:
                inside[_folded(path).rpartition("/")[0].rpartition("/")[2]].append(path)
            self._by_folder[stem] = inside
        found = self._by_folder[stem]
        return _with_ending([*found.get(folders.rpartition("/")[2], ()), *found.get("", ())], base)

    def _cleaned(self, name: str) -> str:
        """A name as a path below the root, with / as separator; an absolute path of another place without its root."""
        if (plain := _folded(name)) in self._exact:  # even with a blank before it
            return plain
        plain = plain.strip()
        if "\\" in plain and not os.path.lexists(self.root / plain):
            plain = plain.replace("\\", "/")
        plain = re.sub(r"^[A-Za-z]:/", "/", plain)
        plain = os.path.normpath(plain.removeprefix(f"{self._absolute}/"))
        if plain.split("/")[0] == "..":
            if (path := self._below_folder_named_alike(plain)) is not None:
                return path
            raise DataError(
                f"Names of pictures below {self.root} were expected in the annotations.",
                f"{name[:200]!r} leads out of it.",
                "Put the annotations into a folder above the pictures, or correct the name.",
            )
        return plain.lstrip("/")

    def _below_folder_named_alike(self, name: str) -> str | None:
        """The picture that a name means which goes out of the root and back in by the names of folders.

        Label Studio writes `../data/photos/a.jpg` into COCO for `a.jpg` of a local storage `photos`.
        """
        tail = "/" + re.sub(r"\A(\.\./)+", "", name)
        fitting = [
            path for path in self._of_base_name(tail)
            if tail.endswith(f"{self._absolute[self._absolute.rindex('/'):]}/{_folded(path)}")
            or ("/" in path and tail.endswith(f"/{_folded(path)}"))
        ]  # fmt: skip
        return _folded(fitting[0]) if len(fitting) == 1 else None


def _folded(path: str) -> str:
    """A path in one Unicode form: macOS decomposes what other systems compose."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _has_ending(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _with_ending(paths: Sequence[str], base: str) -> Sequence[str]:
    """The paths whose base name is this one; all of them where it has no ending of an image file."""
    return [path for path in paths if _folded(path).rpartition("/")[2] == base] if _has_ending(base) else paths


def _stem(name: str) -> str:
    """A name without the ending of an image file."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name
