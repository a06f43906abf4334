"""Decoding: the bytes of an image file → an upright, opaque 8-bit RGB picture, whatever kind of file it is.

JPEG is decoded at a reduced scale where that is enough. EXIF orientation is applied, transparency is flattened on
white, and grey, palette, CMYK, 16-bit and float pictures become RGB. Damaged, huge and malicious files are refused.
"""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from lensmith.errors import ImageError
from lensmith.imaging.containers import count_scans, without_metadata
from lensmith.imaging.formats import ImageFormat, open_image, require_format

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded, in pixels: a small file can unpack to gigabytes."""

MAX_SCANS = 100
"""Most scans of a JPEG; progressive ones have about ten. Each scan takes the time of a whole picture and as little as
fifty bytes: without a limit, a small file could keep a core busy for half an hour."""

STRIP_PIXELS = 1_000_000
"""Pixels converted to RGB at a time, so that a conversion's intermediate memory is small for any picture."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the transposition that makes the picture upright."""


def read(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: the file cannot be read, or is empty.
    """
    try:
        encoded = path.read_bytes()
    except (OSError, ValueError) as error:  # a path may hold a null byte
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"An image was expected at {path}.", f"It cannot be read ({reason}).", "Check the path and rights."
        ) from error
    if not encoded:
        raise ImageError(f"An image was expected at {path}.", "The file is empty.", "Replace or remove it.")
    return encoded


def decode(encoded: bytes, shortest_px: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode to an RGB picture, upright and opaque, of 8 bits a channel.

    EXIF orientation is applied and transparency flattened on white; 16-bit values are scaled to 8 bits.
    With `shortest_px`, a JPEG is decoded at a reduced scale (the decoder's own 1/2, 1/4, 1/8) that keeps its shorter
    side at or above that many pixels, which is several times faster for photos.

    Raises:
        ImageError: not an image, of a format that cannot be read here, damaged, cut short, or of more than `max_pixels`
            pixels or MAX_SCANS scans.
    """
    form = require_format(encoded)
    if form.key == "jpeg" and count_scans(encoded, MAX_SCANS) > MAX_SCANS:
        raise ImageError(
            f"A JPEG of at most {MAX_SCANS} scans was expected.", "This one has more.", "Save it again as JPEG."
        )
    try:
        return _decode(encoded, shortest_px, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        if form.key == "png" and (bare := without_metadata(encoded)) != encoded:
            try:  # large texts or profiles, or damaged ones, do not cost the picture
                return _decode(bare, shortest_px, max_pixels)
            except ImageError:
                raise
            except Exception:
                pass  # it is not the metadata
        raise _unreadable(form, error, max_pixels) from error


def _decode(encoded: bytes, shortest_px: int | None, max_pixels: int) -> Image.Image:
    with open_image(encoded) as picture:
        if picture.width * picture.height > max_pixels:
            raise _too_many_pixels(f"{picture.width} × {picture.height}", max_pixels)
        if shortest_px is not None:
            picture.draft("RGB", (shortest_px, shortest_px))
        picture.load()
        # Pillow's own function would copy the picture and write its other EXIF tags anew, which can fail.
        turn = _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
        return _to_rgb(picture if turn is None else picture.transpose(turn))


def decoded_size(path: Path, shortest_px: int | None = None) -> tuple[int, int]:
    """Width and height, in pixels, of the picture that `decode` makes of a file, from the file's header alone.

    Raises:
        ImageError: not an image, or of more than MAX_PIXELS pixels.
    """
    try:
        return _decoded_size(path, shortest_px)
    except ImageError:
        raise
    except Exception as error:  # as in `decode`
        encoded = read(path)
        form = require_format(encoded)
        if form.key == "png":
            with suppress(Exception):
                return _decoded_size(without_metadata(encoded), shortest_px)
        raise _unreadable(form, error, MAX_PIXELS) from error


def stored_mode(encoded: bytes) -> str:
    """Pillow's name of the pixel mode in an image that `decode` has decoded; empty where its header has none."""
    for source in (encoded, without_metadata(encoded)):
        with suppress(Exception), open_image(source) as stored:
            return stored.mode
    return ""


def _decoded_size(source: bytes | Path, shortest_px: int | None) -> tuple[int, int]:
    with open_image(source) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise _too_many_pixels(f"{picture.width} × {picture.height}", MAX_PIXELS)
        if shortest_px is not None:
            picture.draft("RGB", (shortest_px, shortest_px))
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (picture.height, picture.width) if turned else picture.size


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    width, height = picture.size
    # The value range of 32-bit grey depends on the whole picture.
    if width * height <= STRIP_PIXELS or picture.mode in ("I", "F"):
        return _converted(picture)
    whole = Image.new("RGB", picture.size)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        whole.paste(_converted(picture.crop((0, top, width, min(top + rows, height)))), (0, top))
    return whole


def _converted(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255. For 16-bit colour its decoder takes the high byte, as here.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):  # 32-bit TIFF has no range: values beyond 255 count as 16-bit
        grey = np.asarray(picture, dtype=np.float64)
        scaled = grey / 257.0 if grey.max(initial=0) > 255 else grey
        return Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:  # RGB as well: a PNG may name one colour as transparent
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _unreadable(form: ImageFormat, error: Exception, max_pixels: int) -> ImageError:
    """The error for a picture whose decoder failed; the decoder's own words are in its cause only."""
    if isinstance(error, Image.DecompressionBombError):  # Pillow refuses the very largest by itself
        found = re.search(r"\d+", str(error))
        return _too_many_pixels(f"{int(found[0]):,}" if found else "more", max_pixels)
    return ImageError(
        "A complete image file was expected.",
        f"It is {form.name}, but damaged, truncated, or of a rare kind.",
        "Replace or remove it, or save it again as JPEG or PNG.",
    )


def _too_many_pixels(found: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"An image of at most {max_pixels:,} pixels was expected.", f"This one has {found}.", "Scale it down first."
    )
