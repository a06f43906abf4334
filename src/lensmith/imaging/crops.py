"""Crops: a rectangle of a picture in the place of an image file, named by a media fragment.

    photo.jpg#xywh=12,30,200,180      x, y, width and height in pixels of the upright picture (after EXIF orientation)

`imaging.decoding.read` returns the bytes of the rectangle alone, so whatever reads images works with crops unchanged.
Only files on disk are called otherwise: `picture_of` names the file behind a crop.

Source: W3C, Media Fragments URI 1.0, 2012, for the form of the name.
"""

import re
from pathlib import Path
from typing import NamedTuple

_FRAGMENT = re.compile(r"(?P<name>.+)#xywh=(?:pixel:)?(\d+),(\d+),(\d+),(\d+)\Z", re.DOTALL)


class Box(NamedTuple):
    """A rectangle of an upright picture, in pixels: left, top, and a width and height of at least 1."""

    x: int
    y: int
    width: int
    height: int


def crop_path(path: str, box: Box) -> str:
    """The name of a rectangle of the picture at `path`."""
    return f"{path}#xywh={box.x},{box.y},{box.width},{box.height}"


def box_of(path: Path) -> Box | None:
    """The rectangle that a path names; None where it names a whole picture."""
    found = _FRAGMENT.match(path.name)
    return None if found is None else Box(*(int(number) for number in found.groups()[1:]))


def picture_of(path: Path) -> Path:
    """The file on disk that a path names or names a rectangle of."""
    found = _FRAGMENT.match(path.name) if "#xywh=" in path.name else None
    return path if found is None else path.with_name(found["name"])
