"""Decoding: the bytes of an image file → an upright, opaque 8-bit RGB picture, whatever kind of file it is.

JPEG is decoded at a reduced scale where that is enough. EXIF orientation is applied, transparency is flattened on
white, and grey, palette, CMYK, 16-bit and float pictures become RGB. Damaged, huge and malicious files are refused.
"""

import io
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from lensmith.errors import ImageError
from lensmith.imaging import tiff
from lensmith.imaging.containers import count_scans, without_metadata
from lensmith.imaging.crops import Box, box_of, picture_of
from lensmith.imaging.formats import ImageFormat, identify, open_image, require_format
from lensmith.imaging.stored_picture import STRIP_PIXELS, StoredPicture
from lensmith.imaging.stored_values import Stored, stored_values
from lensmith.imaging.value_range import ValueRange, ValueStatistics

T = TypeVar("T")

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded, in pixels: a small file can unpack to gigabytes."""

MAX_SCANS = 100
"""Most scans of a JPEG; progressive ones have about ten. Each scan takes the time of a whole picture and as little as
fifty bytes: without a limit, a small file could keep a core busy for half an hour."""

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
    """The bytes of an image file; of a crop, those of the rectangle alone.

    Raises:
        ImageError: the file cannot be read, or is empty, or a crop as in `cut`.
    """
    try:
        encoded = picture_of(path).read_bytes()
    except (OSError, ValueError) as error:  # a path may hold a null byte
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"An image was expected at {path}.", f"It cannot be read ({reason}).", "Check the path and rights."
        ) from error
    if not encoded:
        raise ImageError(f"An image was expected at {path}.", "The file is empty.", "Replace or remove it.")
    box = box_of(path)
    return encoded if box is None else cut(encoded, box)


def cut(encoded: bytes, box: Box) -> bytes:
    """A rectangle of an image as a file of its own, without loss: PNG, or TIFF for floats and wide integers.

    Args:
        encoded: the bytes of the file.
        box: the rectangle; what lies outside the picture is left out.

    Raises:
        ImageError: as in `decode`; or the rectangle lies outside the picture, or the picture has more than 8 bits a
            channel with alpha, colour, or tags that say how they are meant.
    """

    def use(source: bytes) -> bytes:
        with open_image(source) as picture:
            _require_size(picture, MAX_PIXELS)
            stored = stored_values(picture)
            if stored is None:
                whole = decode(source)
            elif stored == Stored(stored.kind):
                picture.load()
                whole = picture.transpose(turn) if (turn := _turn(picture)) is not None else picture
            else:
                raise ImageError(
                    "A crop of a picture of 8 bits a channel, or of plain grey values, was expected.",
                    f"The picture has {stored.kind} values with colour, alpha or tags.",
                    "Save the picture as 8-bit PNG.",
                )
        right, bottom = min(box.x + box.width, whole.width), min(box.y + box.height, whole.height)
        if right <= box.x or bottom <= box.y:
            raise ImageError(
                f"A rectangle inside the picture of {whole.width} × {whole.height} pixels was expected.",
                f"It is {box.width} × {box.height} at {box.x}, {box.y}.",
                "Correct the annotation; boxes are in pixels of the upright picture.",
            )
        part, stream = whole.crop((box.x, box.y, right, bottom)), io.BytesIO()
        if part.mode in ("RGB", "I;16"):
            part.save(stream, "PNG", compress_level=1)
        else:
            part.save(stream, "TIFF")
        return stream.getvalue()

    return _with_decoder(encoded, MAX_PIXELS, use)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """The transposition that makes a loaded picture upright; None where it is."""
    # Pillow's own function would copy the picture and write its other EXIF tags anew, which can fail.
    return _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))


def decode(
    encoded: bytes,
    shortest_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    value_ranges: Mapping[str, ValueRange] | None = None,
) -> Image.Image:
    """Decode to an RGB picture, upright and opaque, of 8 bits a channel.

    EXIF orientation is applied and transparency flattened on white.

    Args:
        encoded: the bytes of the file.
        shortest_px: a JPEG is decoded at a reduced scale (the decoder's own 1/2, 1/4, 1/8) that keeps its shorter side
            at or above that many pixels, which is several times faster for photos; None: at full scale.
        max_pixels: largest picture that is decoded.
        value_ranges: black and white by kind of values, where the file does not tell: those of the set that the picture
            belongs to, as the bundle has them. None: the picture is taken for a set of its own.

    Raises:
        ImageError: not an image, of a format that cannot be read here, damaged, cut short, of more than `max_pixels`
            pixels or MAX_SCANS scans, of values without a range, or of values that contradict it.
    """

    def use(source: bytes) -> Image.Image:
        with open_image(source) as picture:
            _require_size(picture, max_pixels)
            stored = stored_values(picture)
            if shortest_px is not None:
                picture.draft("RGB", (shortest_px, shortest_px))
            picture.load()
            turn = _turn(picture)
            if stored is not None:
                rgb = StoredPicture(picture, stored, source).to_rgb(value_ranges)
                return rgb if turn is None else rgb.transpose(turn)
            return _to_rgb(picture if turn is None else picture.transpose(turn))

    return _with_decoder(encoded, max_pixels, use)


def value_statistics(encoded: bytes) -> ValueStatistics | None:
    """Statistics of a file's stored values; None where its format tells their range, as that of 8-bit files does.

    Raises:
        ImageError: as in `decode`.
    """

    def use(source: bytes) -> ValueStatistics | None:
        with open_image(source) as picture:
            _require_size(picture, MAX_PIXELS)
            stored = stored_values(picture)
            if stored is None:
                return None
            picture.load()
            return StoredPicture(picture, stored, source).statistics()

    return _with_decoder(encoded, MAX_PIXELS, use)


def may_need_value_range(beginning: bytes) -> bool:
    """Whether a file may hold values whose range its format does not tell, from its first HEAD_BYTES bytes."""
    form = identify(beginning)
    if form is None:
        return False
    if form.key == "png":
        return beginning[24:25] == b"\x10"  # the depth, in IHDR
    return form.key in ("tiff", "jp2", "ppm")


def decoded_size(path: Path, shortest_px: int | None = None) -> tuple[int, int]:
    """Width and height, in pixels, of the picture that `decode` makes of a file, from the file's header alone.

    Raises:
        ImageError: not an image, or of more than MAX_PIXELS pixels.
    """
    if (box := box_of(path)) is not None:
        width, height = decoded_size(picture_of(path))
        return min(box.width, max(1, width - box.x)), min(box.height, max(1, height - box.y))
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
        raise _unreadable(form, encoded, error, MAX_PIXELS) from error


def stored_mode(encoded: bytes) -> str:
    """Pillow's name of the pixel mode in an image that `decode` has decoded; empty where its header has none."""
    for source in (encoded, without_metadata(encoded)):
        with suppress(Exception), open_image(source) as stored:
            return stored.mode
    return ""


def has_deep_values(encoded: bytes) -> bool:
    """Whether an image that `decode` has decoded stores more than 8 bits a channel, so that its range is a question."""
    for source in (encoded, without_metadata(encoded)):
        with suppress(Exception), open_image(source) as stored:
            return stored_values(stored) is not None
    return False


def _decoded_size(source: bytes | Path, shortest_px: int | None) -> tuple[int, int]:
    with open_image(source) as picture:
        _require_size(picture, MAX_PIXELS)
        if shortest_px is not None:
            picture.draft("RGB", (shortest_px, shortest_px))
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (picture.height, picture.width) if turned else picture.size


def _with_decoder(encoded: bytes, max_pixels: int, use: Callable[[bytes], T]) -> T:
    """What `use` makes of the encoded image, or else of the image without its metadata.

    Raises:
        ImageError: as in `decode`.
    """
    form = require_format(encoded)
    if form.key == "jpeg" and count_scans(encoded, MAX_SCANS) > MAX_SCANS:
        raise ImageError(
            f"A JPEG of at most {MAX_SCANS} scans was expected.", "This one has more.", "Save it again as JPEG."
        )
    try:
        return use(encoded)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        if form.key == "png" and (bare := without_metadata(encoded)) != encoded:
            try:  # large texts or profiles, or damaged ones, do not cost the picture
                return use(bare)
            except ImageError:
                raise
            except Exception:
                pass  # it is not the metadata
        raise _unreadable(form, encoded, error, max_pixels) from error


def _require_size(picture: Image.Image, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise _too_many_pixels(f"{picture.width} × {picture.height}", max_pixels)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    width, height = picture.size
    if width * height <= STRIP_PIXELS:
        return _converted(picture)
    whole = Image.new("RGB", picture.size)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        whole.paste(_converted(picture.crop((0, top, width, min(top + rows, height)))), (0, top))
    return whole


def _converted(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:  # RGB as well: a PNG may name one colour as transparent
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _unreadable(form: ImageFormat, encoded: bytes, error: Exception, max_pixels: int) -> ImageError:
    """The error for a picture whose decoder failed; the decoder's own words are in its cause only."""
    if isinstance(error, Image.DecompressionBombError):  # Pillow refuses the very largest by itself
        found = re.search(r"\d+", str(error))
        return _too_many_pixels(f"{int(found[0]):,}" if found else "more", max_pixels)
    kind = tiff.describe(encoded) if form.key == "tiff" and isinstance(error, UnidentifiedImageError) else ""
    reason = f"a TIFF of {kind}" if kind else f"the {form.name} is damaged, truncated, or of a rare kind"
    return ImageError(
        "A complete image file was expected.",
        f"It cannot be decoded ({reason}).",
        "Replace or remove it, or save it again as JPEG or PNG.",
    )


def _too_many_pixels(found: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"An image of at most {max_pixels:,} pixels was expected.", f"This one has {found}.", "Scale it down first."
    )
