"""The cost of decoding an image, estimated from its header before it is decoded.

A photo of 12 megapixels takes fifty times as long to decode as a small one, and a PNG of that size six times as long as
a JPEG, whose scaled decode skips most of the work. What limits time must know that before, not afterwards.
"""

from contextlib import suppress
from typing import NamedTuple

from lensmith.imaging.formats import identify, open_image

SMALL_S = 0.004
"""Seconds below which decoding is part of what any image costs."""

MAX_JPEG_BYTES_PER_PIXEL = 0.7
"""Bytes of a JPEG beyond this are not its pixels, but a video or raw data behind its end."""

_MAX_SEGMENTS = 200

# Measured with Pillow 13 on one core of an AMD EPYC of 2021 for a model of 224 px: seconds for a megapixel, and for a
# megabyte of the file. Entropy decoding goes with the bytes, everything else with the pixels.
_COSTS = {
    "jpeg": (0.0005, 0.009),
    "progressive jpeg": (0.0027, 0.028),
    "png": (0.024, 0.0),
    "webp": (0.014, 0.042),
    "bmp": (0.006, 0.0),
    "tiff": (0.008, 0.001),
    "gif": (0.007, 0.005),
    "avif": (0.010, 0.056),
    "heic": (0.016, 0.112),
    "jp2": (0.021, 0.125),
    "ppm": (0.005, 0.0),
}


class DecodeCost(NamedTuple):
    """What decoding an image costs.

    Attributes:
        kind: format, with JPEG's progressive mode apart; machines differ in how much faster each is than here.
        megapixels: width × height, in millions.
        reference_s: seconds on the machine that was measured.
    """

    kind: str
    megapixels: float
    reference_s: float


def decode_cost(encoded: bytes, max_pixels: int) -> DecodeCost | None:
    """The cost of decoding an image; None for one that costs next to nothing, or is refused by its header."""
    form = identify(encoded)
    if form is None:
        return None
    kind, pixels = form.key, None
    if form.key == "jpeg":
        kind, pixels = _jpeg(encoded)
    elif form.key == "png":
        pixels = int.from_bytes(encoded[16:20], "big") * int.from_bytes(encoded[20:24], "big")
    else:
        with suppress(Exception), open_image(encoded) as picture:
            pixels = picture.width * picture.height
    if not pixels or pixels > max_pixels:
        return None
    megapixels, megabytes = pixels / 1e6, len(encoded) / 1e6
    if form.key == "jpeg":
        megabytes = min(megabytes, MAX_JPEG_BYTES_PER_PIXEL * megapixels)
    per_megapixel, per_megabyte = _COSTS[kind]
    reference_s = per_megapixel * megapixels + per_megabyte * megabytes
    return DecodeCost(kind, megapixels, reference_s) if reference_s >= SMALL_S else None


def _jpeg(encoded: bytes) -> tuple[str, int]:
    """Kind and number of pixels, from the frame header (SOF); 0 pixels where there is none."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        while encoded[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        marker = encoded[place + 1 : place + 2]
        if encoded[place : place + 1] != b"\xff" or not marker:
            break
        if b"\xc0" <= marker <= b"\xcf" and marker not in b"\xc4\xc8\xcc":
            height, width = (int.from_bytes(encoded[at : at + 2], "big") for at in (place + 5, place + 7))
            return ("progressive jpeg" if marker in b"\xc2\xc6\xca\xce" else "jpeg"), width * height
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    return "jpeg", 0
