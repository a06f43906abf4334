"""Pictures as browsers can show them: any file that lensmith reads, upright and scaled down, as JPEG or PNG."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from lensmith.core.machine import allowed_cores
from lensmith.curation.reviewing.items import ReviewSource
from lensmith.imaging.decoding import decode, read

SIDES_PX = (240, 1280, 4096)
"""Longest sides that pictures are sent with: in the grid, alone, and zoomed in."""
LOSSLESS_PX = 256
"""Pictures of at most that many pixels a side are sent as PNG, so that each pixel is seen as it is."""
JPEG_QUALITY = 90
CACHE_BYTES = 128_000_000


@dataclass(frozen=True)
class Shown:
    """A picture ready to be sent.

    Attributes:
        encoded: bytes of the file.
        mime: content type.
    """

    encoded: bytes
    mime: str


class PictureSender:
    """Makes and caches pictures of a source. Safe to call from several threads; as many work as there are cores."""

    def __init__(self, source: ReviewSource) -> None:
        self._source = source
        self._cache: OrderedDict[tuple[int, int], Shown] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self._cores = threading.BoundedSemaphore(max(1, allowed_cores()))

    def show(self, position: int, side_px: int) -> Shown:
        """An item's picture with a longest side of at most `side_px` pixels.

        Raises:
            ImageError: the file cannot be read, or is no picture.
        """
        key = (position, side_px)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        with self._cores:
            made = _encoded(decode(read(self._source.file(self._source.items[position].path)), side_px), side_px)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = made
                self._cached_bytes += len(made.encoded)
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= len(oldest.encoded)
        return made


def _encoded(picture: Image.Image, side_px: int) -> Shown:
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    if max(picture.size) <= LOSSLESS_PX:
        picture.save(out, "PNG", compress_level=3)
        return Shown(out.getvalue(), "image/png")
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return Shown(out.getvalue(), "image/jpeg")
