"""Copies in an image set: files of equal content, pictures of equal pixels, and near copies, as pairs.

Everything is found by pixels alone, without a network: each file is read and decoded once, at a reduced scale, and the
result is memoized on disk by the files' paths, sizes, times and inodes.
"""

import hashlib
import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from lensmith.bundle.image_hashes import SCALED_PX
from lensmith.core.disjoint_sets import DisjointSets
from lensmith.core.machine import allowed_cores
from lensmith.core.memoized import memoized_on_disk
from lensmith.core.progress import track, watching
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.core.threads import map_in_order
from lensmith.core.version import installed_versions
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample, identity
from lensmith.data.near_copies.decision import find_matches
from lensmith.data.near_copies.transforms import SIDE, Ints
from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, has_deep_values, read

CopyKind = Literal["content", "pixels", "near"]

VERSION = 2
"""Raised with each change that finds other pairs, so that memoized ones are not used."""


@dataclass(frozen=True)
class NearCopy(Result):
    """Two images of which one is a copy of the other.

    Attributes:
        paths: paths of both, relative to the set's root; the shorter first.
        similarity: 1 for equal pixels; for near copies one less the difference of the aligned pictures, 0..1.
        kind: content: the files are equal; pixels: the decoded pictures are; near: resized, encoded anew, mirrored,
            turned or cropped.
        across_parts: whether they are in two parts of the split, which is data leakage.
        across_classes: whether they have two labels, of which one must be wrong.
    """

    paths: tuple[str, str]
    similarity: float
    kind: CopyKind
    across_parts: bool
    across_classes: bool


class _Picture(NamedTuple):
    content: str
    pixels: str | None
    thumbnail: Ints
    side: int


def find_near_copies(images: ImageSet) -> tuple[NearCopy, ...]:
    """All pairs of copies in a set: those across parts first, then across classes, then the most similar.

    Of several equal files each is a copy of the first, the one with the shortest path. Unreadable files have no copies.
    Pictures that show nothing, such as a plain sky, are near copies of none.
    """
    depends_on = {
        "files": identity(images, images.samples),
        "version": VERSION,
        "versions": installed_versions(("lensmith", "pillow", "pillow-heif")),
    }
    found = memoized_on_disk("near_copies", depends_on, lambda: _find(images))

    def order(pair: NearCopy) -> tuple[bool, bool, float, tuple[str, str]]:
        return not pair.across_parts, not pair.across_classes, -pair.similarity, pair.paths

    return tuple(sorted((_near_copy(images, *pair) for pair in found), key=order))


def copies_of(images: ImageSet) -> dict[str, str]:
    """Path of each image with copies → path of the first of all that are copies of each other, itself for that one."""
    joined = DisjointSets()
    for pair in find_near_copies(images):
        joined.join(*sorted(map(joined.find, pair.paths), key=lambda path: (len(path), path)))
    return {path: joined.find(path) for path in joined.keys}


def near_warnings(copies: Sequence[NearCopy]) -> Iterator[str]:
    """Sentences on near copies in two parts or under two classes; equal ones have warnings of their own."""
    for what, found in (
        ("in two parts, which makes the result look better than it is", [each for each in copies if each.across_parts]),
        ("under two classes, of which one is wrong", [each for each in copies if each.across_classes]),
    ):
        if near := [each for each in found if each.kind == "near"]:
            named = listed((f"{printable(each.paths[0])} and {printable(each.paths[1])}" for each in near), 3, "; ")
            yield f"Near copies {what}: {len(near):,} pairs ({named})."
    if any(each.across_parts and each.kind == "near" for each in copies):
        yield "A split with --group auto keeps near copies together."


def thumbnail(picture: Image.Image) -> Ints:
    """Luma and chroma of a whole picture made square: uint8 (SIDE, SIDE, 3)."""
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=4.0)
    return np.asarray(small.convert("YCbCr"))


def _near_copy(images: ImageSet, first: int, second: int, similarity: float, kind: CopyKind) -> NearCopy:
    pair = sorted((images.samples[first], images.samples[second]), key=lambda sample: (len(sample.path), sample.path))
    return NearCopy(
        paths=(pair[0].path, pair[1].path),
        similarity=similarity,
        kind=kind,
        across_parts=pair[0].part != pair[1].part,
        across_classes=pair[0].label != pair[1].label,
    )


def _find(images: ImageSet) -> list[tuple[int, int, float, CopyKind]]:
    """First, second, similarity and kind of each pair, by the samples' numbers."""
    pictures = _pictures(images)
    order = sorted(pictures, key=lambda number: (len(images.samples[number].path), images.samples[number].path))
    pairs: list[tuple[int, int, float, CopyKind]] = []
    first_of: dict[Hashable, int] = {}
    different = []
    for number in order:
        picture = pictures[number]
        if (first := first_of.setdefault(("content", picture.content), number)) != number:
            pairs.append((first, number, 1.0, "content"))
        elif (first := first_of.setdefault(("pixels", picture.pixels or picture.content), number)) != number:
            pairs.append((first, number, 1.0, "pixels"))
        else:
            different.append(number)
    thumbnails = np.array([pictures[number].thumbnail for number in different])
    sides = np.array([pictures[number].side for number in different])
    pictures.clear()
    with watching("Comparing pictures") as watch:
        matches = find_matches(thumbnails, sides, watch)
    near: list[tuple[int, int, float, CopyKind]] = [
        (different[int(first)], different[int(second)], round(float(similarity), 4), "near")
        for first, second, similarity in zip(*matches, strict=True)
    ]
    return pairs + near


def _pictures(images: ImageSet) -> dict[int, _Picture]:
    """Number of each readable sample → its hashes and thumbnail."""

    def read_one(sample: Sample) -> _Picture | None:
        try:
            encoded = read(images.file(sample))
            picture = decode(encoded, shortest_px=SCALED_PX)
        except ImageError:
            return None
        # How deep values become 8 bits depends on the set, so different pictures can have equal ones.
        pixels = None if has_deep_values(encoded) else _hash(f"{picture.size}".encode() + picture.tobytes())
        return _Picture(_hash(encoded), pixels, thumbnail(picture), min(picture.size))

    cores = allowed_cores()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only pixels matter here
        found = map_in_order(read_one, images.samples, cores, 8 * cores, "copies")
        shown = track(found, "Reading pictures", len(images.samples))
        return {number: picture for number, picture in enumerate(shown) if picture is not None}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
