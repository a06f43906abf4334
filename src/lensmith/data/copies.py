"""Files of equal content in an image set, found without reading more than those that can be equal."""

import hashlib
from collections import defaultdict
from pathlib import Path

from lensmith.core.machine import allowed_cores
from lensmith.core.threads import map_in_order
from lensmith.data.scan import ImageSet
from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, read

_HEAD_BYTES = 4096


def first_of_equals(images: ImageSet) -> dict[str, str]:
    """Path of each file with the content of another → path of the first with it: the shortest, then by code point.

    Files of different sizes differ, so that only those of equal size are read: first their beginning, and wholly if
    that is equal, too. A link is a copy of what it names. Files that cannot be decoded are no copies: no part learns
    from them or is evaluated on them.
    """
    by_size = defaultdict(list)
    for sample, size in zip(images.samples, images.sizes, strict=True):
        if size > 0:
            by_size[size].append(sample.path)
    groups = [sorted(paths, key=lambda path: (len(path), path)) for paths in by_size.values() if len(paths) > 1]
    for head_bytes in (_HEAD_BYTES, None):
        groups = _divided_by_content(images.root, groups, head_bytes)
    readable = [group for group in groups if _can_be_decoded(images.root / group[0])]
    return {path: group[0] for group in readable for path in group[1:]}


def _divided_by_content(root: Path, groups: list[list[str]], head_bytes: int | None) -> list[list[str]]:
    """The groups of files that are equal in their first bytes, or wholly with None."""
    paths = [path for group in groups for path in group]
    cores = allowed_cores()
    hashes = map_in_order(lambda path: _content_hash(root / path, head_bytes), paths, cores, 64 * cores, "copies")
    hash_of = dict(zip(paths, hashes, strict=True))
    found = []
    for group in groups:
        equal = defaultdict(list)
        for path in group:
            equal[hash_of[path]].append(path)
        found += [paths for content, paths in equal.items() if content is not None and len(paths) > 1]
    return found


def _content_hash(file: Path, head_bytes: int | None) -> bytes | None:
    """SHA-256 of a file or of its beginning; None if it cannot be read."""
    try:
        with file.open("rb") as stream:
            if head_bytes is not None:
                return hashlib.sha256(stream.read(head_bytes)).digest()
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None


def _can_be_decoded(file: Path) -> bool:
    try:
        decode(read(file))
    except ImageError:
        return False
    return True
