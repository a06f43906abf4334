"""TIFF beyond Pillow's own list: layouts that its decoders can read, and what a file holds that they cannot."""

import io
from contextlib import suppress
from typing import Any

_LAYOUTS = {
    # byte order, photometric interpretation, sample format, fill order, bits, extra samples → mode, raw mode
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (1,), 1, (32,), ()): ("I", "I;32N"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32BS"),
    (b"II", 1, (3,), 1, (64,), ()): ("F", "F;64F"),
    (b"MM", 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
}
"""WhiteIsZero of 16 and 32 bits, big-endian uint32, and float64, which is what scikit-image's floats are saved as."""

_FORMATS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex float"}


def add_layouts(decoder: Any) -> None:
    """Let Pillow's TIFF decoder, a module, read the layouts of `_LAYOUTS`; those that it knows stay."""
    for key, modes in _LAYOUTS.items():
        decoder.OPEN_INFO.setdefault(key, modes)


def describe(encoded: bytes) -> str:
    """The kind and number of a TIFF's values, such as `3 float16 values a pixel`; empty where its tags are damaged."""
    from PIL import TiffImagePlugin

    with suppress(Exception):  # as its decoder, on damaged files
        tags = TiffImagePlugin.ImageFileDirectory_v2(encoded[: 16 if encoded[2:4] in (b"+\0", b"\0+") else 8])
        stream = io.BytesIO(encoded)
        stream.seek(tags.next)
        tags.load(stream)
        kinds = {_FORMATS.get(each, "?") for each in tags.get(339, (1,))}
        bits = {str(each) for each in tags.get(258, (1,))}
        number = int(tags.get(277, 1))
        return f"{number} {'/'.join(sorted(kinds))}{'/'.join(sorted(bits))} value{'s' * (number > 1)} a pixel"
    return ""
