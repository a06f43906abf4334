"""The structure of JPEG and PNG files, as far as it decides whether their pixels can be read.

Bytes behind a JPEG's end are not the JPEG's: motion photos have a video there, camera modules their raw data. Texts and
colour profiles of a PNG are not its pixels, and their size is no reason to refuse it.
"""

import re
import zlib
from collections.abc import Iterator

MAX_TEXT_BYTES = 1_000_000
"""Most bytes, unpacked, of a text of a PNG that is looked at; Pillow refuses files with larger ones."""

_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")
"""A marker with a meaning. In coded data 0 and the restarts (D0–D7) follow FF as well, and below C0 is none."""

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""Keys of the texts that may hold the orientation."""


def count_scans(encoded: bytes, most: int) -> int:
    """Number of scans of a JPEG up to its end (EOI), by its segments; what lies behind is not looked at.

    Thumbnails in segments have scans of their own, which do not count.

    Args:
        encoded: the JPEG.
        most: number of scans after which the count may stop; the result is then larger than `most`.
    """
    if (found := encoded.count(b"\xff\xda")) <= most:  # there cannot be more: nearly every file ends here
        return found
    scans, place = 0, 2
    while scans <= most and (marker := _MARKER.search(encoded, place)):
        kind = marker[1][0]
        place = marker.end()
        if kind == _EOI:
            break
        scans += kind == _SOS
        if kind != _SOI:
            place += max(2, int.from_bytes(encoded[place : place + 2], "big"))
    return scans


def without_metadata(encoded: bytes) -> bytes:
    """A PNG of the chunks alone that decide its pixels, its transparency and its orientation.

    Texts, profiles and damaged ancillary chunks are left out. So is what follows a broken structure.
    """
    kept = [_SIGNATURE]
    for kind, data, whole, is_intact in _chunks(encoded):
        is_critical = not kind[:1].islower()
        is_wanted = kind in (b"tRNS", b"eXIf") or (kind in (b"tEXt", b"zTXt", b"iTXt") and _is_orientation(kind, data))
        if is_critical or (is_wanted and (is_intact or kind == b"tRNS")):
            kept.append(whole)
        if kind == b"IEND":
            break
    return b"".join(kept)


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Kind, data, all bytes, and whether its checksum is right, of each chunk of a PNG."""
    place = len(_SIGNATURE)
    while place + 12 <= len(encoded):
        end = place + 12 + int.from_bytes(encoded[place : place + 4], "big")
        whole = encoded[place:end]
        is_intact = len(encoded) >= end and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        yield whole[4:8], whole[8:-4], whole, is_intact
        place = end


def _is_orientation(kind: bytes, data: bytes) -> bool:
    """Whether a text may hold the orientation, and is small enough to be read."""
    key, _, rest = data.partition(b"\0")
    if key not in _ORIENTATION:
        return False
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return len(data) <= MAX_TEXT_BYTES
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES)) < MAX_TEXT_BYTES
    except zlib.error:
        return False
