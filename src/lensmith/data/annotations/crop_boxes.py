"""Boxes of annotations → rectangles of upright pictures, clipped, with a margin."""

import math
from pathlib import Path

from PIL import ExifTags

from lensmith.data.annotations.reader import Area
from lensmith.errors import ImageError
from lensmith.imaging.crops import Box
from lensmith.imaging.decoding import decoded_size
from lensmith.imaging.formats import open_image

ASPECT_TOLERANCE = 0.02
"""Relative difference of aspect ratios up to which a picture counts as a resized one; resizing rounds to pixels."""

_TURNS = {5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
"""EXIF orientation → whether the upright picture runs backwards along the stored height, and along the stored width."""


class PictureSizes:
    """Sizes of upright pictures, each read once from the file's header."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[int, int]] = {}

    def __call__(self, path: str) -> tuple[int, int]:
        """Width and height of the upright picture in pixels.

        Raises:
            ImageError: not an image.
        """
        if path not in self._known:
            self._known[path] = decoded_size(self._root / path)
        return self._known[path]

    def crop(self, path: str, area: Area, described: tuple[int, int] | None, margin: float) -> Box | None:
        """The rectangle of a box, clipped to the picture; None where nothing of it lies inside.

        Args:
            path: path of the picture, relative to the root.
            area: the box.
            described: width and height of the picture in pixels, as the annotations have them. Where they are those of
                the stored picture before its EXIF turn, the box is turned; where the picture has been resized since,
                the box is scaled.
            margin: share of the box's width and height that is added on each side.

        Raises:
            ImageError: the file is no image, or has another aspect ratio than the annotated picture.
        """
        size = self(path)
        if not all(map(math.isfinite, area)):
            return None
        if described is not None and min(described) < 1:
            described = None
        if area.is_share:
            share = area
        else:
            width, height = described or size
            share = Area(area.left / width, area.top / height, area.right / width, area.bottom / height)
            if described and described != size and _aspects_differ(described, size):
                turned = _turned(share, self._root / path) if not _aspects_differ(described, size[::-1]) else None
                if turned is None:
                    raise ImageError(
                        f"A picture of {width} × {height} pixels was expected at {path}, as in the annotations.",
                        f"It has {size[0]} × {size[1]} pixels.",
                        "Give the picture that was annotated.",
                    )
                share = turned
        return _clipped(share, size, margin)


def _clipped(share: Area, size: tuple[int, int], margin: float) -> Box | None:
    edges = []
    for low, high, pixels in ((share.left, share.right, size[0]), (share.top, share.bottom, size[1])):
        low, high = sorted((low, high))
        first, last = max(0.0, low), min(1.0, high)
        if first >= last:
            return None
        around = margin * (high - low)
        start = min(pixels - 1, max(0, _nearest((low - around) * pixels)))
        edges.append((start, max(start + 1, min(pixels, _nearest((high + around) * pixels)))))
    (left, right), (top, bottom) = edges
    return Box(left, top, right - left, bottom - top)


def _nearest(value: float) -> int:
    """The nearest whole number; halves go up, and what arithmetic has lost below a thousandth is put back."""
    return math.floor(round(value, 3) + 0.5)


def _aspects_differ(one: tuple[int, int], other: tuple[int, int]) -> bool:
    across, along = one[0] * other[1], one[1] * other[0]
    slack = max(one[0] + other[1], one[1] + other[0])  # half a pixel of rounding on a side
    return abs(across - along) > max(ASPECT_TOLERANCE * max(across, along), slack / 2)


def _turned(share: Area, file: Path) -> Area | None:
    """A box of the stored picture as one of the upright picture; None where EXIF does not turn it by 90°."""
    with open_image(file) as picture:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is None:
        return None
    xs = [1 - edge if turn[0] else edge for edge in (share.top, share.bottom)]
    ys = [1 - edge if turn[1] else edge for edge in (share.left, share.right)]
    return Area(min(xs), min(ys), max(xs), max(ys))
