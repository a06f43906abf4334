"""Content digests: SHA-256 of the bytes of image files, memoized on disk by file.

What is computed from a picture is cached under its digest, and so found again after the file was renamed, moved, copied
or relabelled, and in any set, order or part.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lensmith.core.file_memo import Values, memoized_by_file
from lensmith.core.progress import track
from lensmith.errors import ImageError
from lensmith.imaging.crops import box_of, picture_of
from lensmith.imaging.decoding import read

KIND = "sha256"
"""Kind in the file memo of the digest of what `imaging.decoding.read` returns."""


def content_digests(paths: Sequence[Path]) -> list[bytes | None]:
    """SHA-256 of each image file, 32 bytes; of a crop that of its picture and its box; None where it cannot be read."""
    pictures = list(dict.fromkeys(picture_of(path) for path in paths))
    shown = track(memoized_by_file((KIND,), pictures, _digest), "reading images", len(pictures))
    of_picture = dict(zip(pictures, (values[0] for values in shown), strict=True))
    return [_of_box(of_picture[picture_of(path)], path) for path in paths]


def distinct_digests(digests: Sequence[bytes | None]) -> list[bytes | None]:
    """The digests, of which each repetition is replaced by one of its own: the same for any order of other digests."""
    seen: Counter[bytes] = Counter()
    distinct: list[bytes | None] = []
    for digest in digests:
        if digest is not None and (copies := seen[digest]):
            distinct.append(hashlib.sha256(digest + copies.to_bytes(8, "little")).digest())
        else:
            distinct.append(digest)
        if digest is not None:
            seen[digest] += 1
    return distinct


def digest_of(encoded: bytes) -> bytes:
    """SHA-256 of the bytes of an image file, as it is memoized under KIND."""
    return hashlib.sha256(encoded).digest()


def _digest(path: Path) -> Values:
    try:
        return (digest_of(read(path)),)
    except ImageError:
        return (None,)


def _of_box(picture: bytes | None, path: Path) -> bytes | None:
    box = box_of(path)
    if box is None or picture is None:
        return picture
    return hashlib.sha256(picture + f"{tuple(box)}".encode()).digest()
