"""Addresses of pictures as a labelling server writes them, found again among the files below a folder.

/data/upload/7/50d93e20-a_b.jpg          an upload to Label Studio: eight digits, and a name without blanks
/data/local-files/?d=photos/a%20b.jpg    a file that Label Studio serves from a folder
https://host/bucket/photos/a%20b.jpg     a file of another server; s3://, gs:// and azure-blob:// likewise
photos/a b.jpg                           a path
"""

import base64
import binascii
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeGuard
from urllib.parse import parse_qs, unquote, urlsplit

from lensmith.data.files import Unused, image_files
from lensmith.imaging.formats import SUFFIXES

_UPLOAD = re.compile(r"/data/upload/(?:.*/)?([^/]+)\Z")
_COLUMNS = ("image", "img", "picture", "photo", "url", "path")
"""Names of a task's data that are tried first for the picture."""
_LONGEST = 4096
"""Characters of an address at most."""
_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")


class PictureReferences:
    """Addresses of pictures that lie below a folder.

    All addresses are needed at once: how many leading folders of them lie above `root` is what most of them show, so
    that a picture that was deleted is not taken for one of the same name in another folder.

    Args:
        root: folder of the pictures.
        references: addresses as an annotation file has them.
    """

    def __init__(self, root: Path, references: Iterable[str]) -> None:
        self._root = root
        self._found: dict[str, str] = {}
        self.ambiguous: dict[str, list[str]] = {}
        """Address → several files that it can mean, none of which is taken."""
        by_place: dict[str, list[str]] = defaultdict(list)
        for reference in dict.fromkeys(references):
            by_place[_place(reference)].append(reference)
        for place, members in by_place.items():
            (self._find_uploads if place == "upload" else self._find_paths)(members)

    def path(self, reference: str) -> str:
        """Path of a picture below the root; its path or name as the address tells it where there is no such file."""
        if reference in self._found:
            return self._found[reference]
        written = _written_paths(reference)[-1]
        if _place(reference) == "upload":
            return _PREFIX.sub("", written.rpartition("/")[2], count=1)
        return written if written == reference else written.lstrip("/")

    def _find_paths(self, references: list[str]) -> None:
        """Find addresses of one server by the number of leading folders that fits most of them."""
        depths: Counter[int] = Counter()
        hits: dict[str, dict[int, str]] = {}
        for reference in references:
            hits[reference] = dict(self._below(reference))
            depths.update(hits[reference].keys())
        if depths:
            best = max(depths, key=lambda depth: (depths[depth], -depth))
            self._found |= {reference: found[best] for reference, found in hits.items() if best in found}
        else:  # as in a flat download of a bucket with folders
            for reference in references:
                folder, _, name = _written_paths(reference)[-1].rpartition("/")
                if ".." not in folder.split("/"):
                    self._find_name(reference, name)

    def _below(self, reference: str) -> Iterator[tuple[int, str]]:
        """Number of leading folders left out, and path, of each file below the root that an address can mean."""
        root = os.fspath(self._root)
        for written in _written_paths(reference):
            parts = [part for part in written.split("/") if part not in ("", ".")]
            if ".." in parts:
                continue
            for depth in range(len(parts)):
                path = "/".join(parts[depth:])
                if os.path.isfile(f"{root}/{path}"):  # noqa: PTH113 - half the time of Path's, for a million names
                    yield depth, path

    def _find_uploads(self, references: list[str]) -> None:
        for reference in references:
            found = _UPLOAD.search(_written_paths(reference)[-1])
            name = found[1] if found else ""
            if name in self._names:  # a download of the uploads themselves
                self._find_name(reference, name)
            else:
                self._find_name(reference, _PREFIX.sub("", name, count=1))

    def _find_name(self, reference: str, name: str) -> None:
        files = self._names.get(name) or self._names.get(_stored_name(name)) or []
        if len(files) == 1:
            self._found[reference] = files[0]
        elif files:
            self.ambiguous[reference] = files

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """File name, and the name that an upload of it gets, → paths of pictures below the root."""
        names: dict[str, list[str]] = defaultdict(list)
        for file in image_files(self._root, self._root, Unused()):
            path = file.relative_to(self._root).as_posix()
            for name in {file.name, _stored_name(file.name)}:
                names[name].append(path)
        return names


def picture_column(data: Mapping[str, object]) -> str | None:
    """Name of the value that is the address of a task's picture; None where there is none.

    Values that end like an image file come first, then those with folders, then those with an ending; among them
    values whose names stand for a picture.
    """
    names = [*(name for name in _COLUMNS if name in data), *(name for name in data if name not in _COLUMNS)]
    found = {name: value for name in names if _can_be_address(value := data[name])}
    for is_likely in (_is_image_name, lambda value: "/" in value, lambda value: "." in value):
        likely = [name for name, value in found.items() if is_likely(value)]
        if likely:
            return likely[0]
    return None


def _can_be_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) < _LONGEST and "\n" not in value and not value.startswith("data:")


def _is_image_name(address: str) -> bool:
    path = _written_paths(address)[-1]
    return f".{path.rpartition('.')[2].lower()}" in SUFFIXES


def names_in_address(reference: str) -> list[str]:
    """Names that a picture can have which is written like an address: decoded, and without the prefix of an upload.

    Returns:
        Names other than `reference` itself; none where it is a plain name.
    """
    written = _written_paths(reference)[-1]
    folder, slash, base = written.rpartition("/")
    names = [written] if written != reference else []
    if (plain := _PREFIX.sub("", base, count=1)) != base:
        names.append(folder + slash + plain)
    return names


def _place(reference: str) -> str:
    """What addresses have in common that leave out the same leading folders."""
    if _UPLOAD.search(reference):
        return "upload"
    address = urlsplit(reference) if "://" in reference else None
    return f"{address.scheme}://{address.netloc}" if address else ""


def _written_paths(reference: str) -> list[str]:
    """The path that an address tells: as written, then decoded in both forms of Unicode; the likeliest is the last."""
    reference = _inner(reference)
    if "?d=" in reference and "/local-files/" in reference:
        reference = reference.partition("?d=")[2].partition("&")[0]
    elif "://" in reference:
        reference = urlsplit(reference).path
    reference = reference.replace("\\", "/")
    if "%" not in reference and reference.isascii():
        return [reference]
    decoded = unquote(reference)
    forms = [unicodedata.normalize(form, decoded) for form in ("NFD", "NFC")]
    return list(dict.fromkeys([reference, *forms, decoded][::-1]))[::-1]


def _inner(reference: str) -> str:
    """The address within an address of Label Studio's own that leads to it (`/tasks/1/resolve/?fileuri=…`)."""
    if "fileuri=" not in reference:
        return reference
    try:
        encoded = parse_qs(urlsplit(reference).query)["fileuri"][0]
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (KeyError, IndexError, ValueError, binascii.Error):
        return reference


def _stored_name(name: str) -> str:
    """The name under which Label Studio stores an upload: blanks become `_`, and other signs are left out.

    Source: Django, `django.utils.text.get_valid_filename`.
    """
    return re.sub(r"(?u)[^-\w.]", "", name.strip().replace(" ", "_"))
