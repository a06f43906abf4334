"""Stored values: what the pixels of more than 8 bits a channel, of signed values and of floats are, from the header.

Pillow reads these files but loses what it does not keep with the pixels: the low byte of 16-bit colour, signs,
WhiteIsZero, the byte order of compressed TIFF. So tags are read, and raw modes corrected, before the pixels are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lensmith.errors import ImageError
from lensmith.imaging.value_range import FULL_UINT16, Kind, ValueRange

_BITS, _PHOTOMETRIC, _PLANAR, _FORMAT, _NO_DATA = 258, 262, 284, 339, 42113
_MIN_TAGS, _MAX_TAGS = (280, 340), (281, 341)
_STATED_WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)


@dataclass(frozen=True)
class Stored:
    """What the values of a picture are, from its header.

    Attributes:
        kind: kind of the values.
        stated_range: the range, where the file states it; None: the set's range applies.
        inverted: whether the lowest value is white (TIFF's WhiteIsZero).
        missing: value of pixels that have none, by GDAL's tag.
        channels: 1 for grey, 2 for grey with alpha, 3 for RGB, 4 for RGB with alpha.
        transparent: the value, or the three values, of transparent pixels.
        separate: whether the low byte of colour cannot be read, as in separate planes.
    """

    kind: Kind
    stated_range: ValueRange | None = None
    inverted: bool = False
    missing: float | None = None
    channels: int = 1
    transparent: Any = None
    separate: bool = False


def stored_values(picture: Image.Image) -> Stored | None:
    """What an opened picture stores, before its pixels are read; None: 8-bit values, which Pillow gets right.

    Raw modes of the picture that Pillow gets wrong are corrected, so that its pixels can be read afterwards.

    Raises:
        ImageError: JPEG 2000 with colours of more than 8 bits, CMYK of 16 bits, or a TIFF in separate planes, where
            Pillow gets them wrong.
    """
    if picture.format == "TIFF":
        return _of_tiff(picture)
    raw = raw_modes(picture)
    transparent = picture.info.get("transparency")
    if picture.format == "PNG" and raw in (["L;2"], ["L;4"]) and transparent is not None:
        # Pillow scales these values to 8 bits, but not the one that is transparent.
        picture.info["transparency"] = transparent * 255 // (2 ** int(raw[0][2:]) - 1)
    if picture.format == "PPM":
        return _of_ppm(picture)
    if picture.format == "JPEG2000" and picture.mode not in ("L", "I"):
        return _of_jpeg_2000(picture)
    if picture.mode.startswith("I;16"):
        return Stored("uint16", transparent=transparent)
    if "LA;16B" in raw:
        picture._mode = "I"  # Pillow drops the low bytes; both values fit into 32 bits
        set_raw_modes(picture, lambda mode: "I;32B")
        return Stored("uint16", channels=2)
    if any(mode.startswith("RGB") and ";16" in mode for mode in raw):
        return Stored("uint16", channels=len(picture.getbands()), transparent=transparent)
    if picture.mode == "F":
        return Stored("float32")
    return Stored("int32") if picture.mode == "I" else None


def _of_ppm(picture: Any) -> Stored | None:
    if picture.mode == "F":
        return Stored("float32")
    # Pillow scales by the greatest value, which the file states; 65,535 is what all 16-bit files state.
    is_full = any(tile.args == "I;16B" or tile.args[1:] == (65535,) for tile in picture.tile)
    if picture.mode == "I":
        return Stored("uint16", stated_range=None if is_full else FULL_UINT16)
    return Stored("uint16", channels=3, separate=True) if is_full else None


def _of_jpeg_2000(picture: Any) -> Stored | None:
    bits = _jpeg_2000_bits(picture)
    if picture.mode.startswith("I;16"):  # scaled by the number of bits
        return Stored("uint16", stated_range=FULL_UINT16 if 0 < bits < 16 else None)
    if bits > 8:  # Pillow rounds the lightest values up to 256, which become 0
        raise ImageError(
            "JPEG 2000 with colours of 8 bits a channel was expected.",
            f"Its colours have {bits} bits, which cannot be read in full here.",
            "Save the picture as a 16-bit PNG or TIFF, or as an 8-bit JPEG or PNG.",
        )
    return None


def _jpeg_2000_bits(picture: Any) -> int:
    """Bits of the first channel of an opened JPEG 2000, from its size segment (SIZ); 0 where there is none."""
    place = picture.fp.tell()
    picture.fp.seek(0)
    segment = picture.fp.read().partition(b"\xff\x4f\xff\x51")[2]
    picture.fp.seek(place)
    return (segment[38] & 127) + 1 if len(segment) > 38 else 0  # after size, profile, 8 lengths, channels


def _of_tiff(picture: Any) -> Stored | None:
    tags = picture.tag_v2
    bits, signed = _first(tags.get(_BITS), 1), _first(tags.get(_FORMAT), 1) == 2
    separate = _first(tags.get(_PLANAR), 1) == 2 and len(picture.getbands()) > 1
    if (separate and picture.mode not in ("RGB", "RGBA", "CMYK")) or (picture.mode == "CMYK" and bits > 8):
        what = f"CMYK of {bits} bits" if picture.mode == "CMYK" else f"{picture.mode} in separate planes"
        raise ImageError(
            "A TIFF in grey, RGB, or CMYK of 8 bits a channel was expected.",
            f"It is {what}, which cannot be read in full here.",
            "Save the picture as an 8-bit JPEG or PNG.",
        )
    compressed = any(tile.codec_name == "libtiff" for tile in picture.tile)
    if compressed:  # which gives native byte order
        set_raw_modes(picture, lambda mode: mode.replace("BF", "F").replace("BS", "S"))
    elif separate and bits == 16:  # each plane is decoded alone
        order = "L" if picture.tag_v2.prefix == b"II" else "B"
        set_raw_modes(picture, lambda mode: f"{mode};16{order}" if len(mode) == 1 else mode)
    if picture.mode == "F":
        kind: Kind = "float32"
    elif picture.mode == "I":
        kind = "int16" if bits == 16 else "int32" if signed else "uint32"
    elif picture.mode == "L" and signed and bits == 8:
        kind = "int8"
    elif bits == 16 and (picture.mode.startswith("I;16") or picture.mode in ("RGB", "RGBA")):
        kind = "uint16"
    elif picture.mode.startswith("I;16"):  # 12 bits
        return Stored("uint16", stated_range=(0.0, 2.0**bits - 1))
    else:
        return None
    premultiplied = any(mode.startswith("RGBa") for mode in raw_modes(picture))
    return Stored(
        kind,
        stated_range=_stated_range(tags),
        inverted=tags.get(_PHOTOMETRIC) == 0,
        missing=_missing(tags.get(_NO_DATA)),
        channels=len(picture.getbands()),
        separate=premultiplied or (separate and compressed),
    )


def _stated_range(tags: Mapping[int, Any]) -> ValueRange | None:
    """The range by the tags of least and greatest values; None where these are a picture's own, as statistics are."""
    for least, greatest in zip(_MIN_TAGS, _MAX_TAGS, strict=True):
        white, black = _first(tags.get(greatest), None), _first(tags.get(least), 0)
        if black == 0 and white in _STATED_WHITES:
            return 0.0, float(white)
    return None


def _missing(tag: object) -> float | None:
    try:
        return float(str(tag).strip("\0 "))
    except ValueError:
        return None


def _first(tag: Any, default: Any) -> Any:
    value = tag[0] if isinstance(tag, tuple) and tag else tag
    return default if value is None else value


def raw_modes(picture: Any) -> list[str]:
    """Pillow's names of the layouts in which the parts of an opened picture are stored."""
    return [tile.args if isinstance(tile.args, str) else str(tile.args[0]) for tile in picture.tile if tile.args]


def set_raw_modes(picture: Any, change: Callable[[str], str]) -> None:
    """Change the layouts by which the parts of an opened picture will be read."""

    def changed(args: Any) -> Any:
        return change(args) if isinstance(args, str) else (change(args[0]), *args[1:])

    picture.tile = [tile._replace(args=changed(tile.args)) for tile in picture.tile]
