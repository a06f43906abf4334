"""Thumbnails for pages of one file: pictures at a small size, as data URIs."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, read
from lensmith.imaging.value_range import ValueRange

THUMBNAIL_PX = 160


def thumbnail(file: Path, value_ranges: Mapping[str, ValueRange] | None = None) -> str:
    """A JPEG thumbnail of an image file or crop, at most THUMBNAIL_PX a side, as a data URI.

    Args:
        file: path of the file.
        value_ranges: black and white by kind of values, as in `decoding.decode`.

    Raises:
        ImageError: a file that cannot be decoded.
    """
    picture = decode(read(file), THUMBNAIL_PX, value_ranges=value_ranges)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return data_uri(picture, "JPEG")


def thumbnail_if_readable(file: Path, value_ranges: Mapping[str, ValueRange] | None = None) -> str | None:
    """As `thumbnail`; None for a file that cannot be decoded, as it may be gone since it was looked at."""
    try:
        return thumbnail(file, value_ranges)
    except ImageError:
        return None


def data_uri(picture: Image.Image, format: str) -> str:  # noqa: A002 - Pillow's name
    """A picture as a data URI, in a format by Pillow's name."""
    buffer = io.BytesIO()
    picture.save(buffer, format, quality=80)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
