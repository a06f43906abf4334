"""Copies in an image set: files of equal content, or of equal pixels with other metadata before them.

No two parts hold copies of each other: our own split keeps copies together, and a split that the data brings loses
those of val and test that an earlier part has.

Only files that can be copies are read: those whose last bytes are equal, where image formats have pixels and cameras
and photo managers write no metadata.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lensmith.bundle.image_hashes import hash_files
from lensmith.core.machine import allowed_cores
from lensmith.core.text import listed
from lensmith.core.threads import map_in_order
from lensmith.data.files import printable
from lensmith.data.image_set import PARTS, ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.crops import picture_of
from lensmith.imaging.decoding import decode, read

_TAIL_BYTES = 64


def first_of_equals(images: ImageSet) -> dict[str, str]:
    """Path of each copy → path of the file that it is a copy of: the shortest path, then the first by code point.

    A link is a copy of what it names. Files that cannot be decoded are no copies: no part learns from them or is
    evaluated on them.
    """
    paths = [sample.path for sample, size in zip(images.samples, images.sizes, strict=True) if size > 0]
    cores = allowed_cores()
    tails = map_in_order(lambda path: _tail(images.root / path), paths, cores, 64 * cores, "copies")
    alike = _grouped(zip(paths, tails, strict=True))
    candidates = [path for group in alike for path in group]
    keys: list[tuple[str, Hashable]] = []
    for path, found in zip(candidates, hash_files([images.root / path for path in candidates]), strict=True):
        if found is not None:
            content, pixels = found
            keys.append((path, ("content", content) if pixels is None else ("pixels", pixels)))
    first: dict[str, str] = {}
    for group in _grouped(keys):
        original, *copies = sorted(group, key=lambda path: (len(path), path))
        if _can_be_decoded(images.root / original):
            first.update(dict.fromkeys(copies, original))
    return first


def without_leaks(images: ImageSet) -> ImageSet:
    """The set without the images of val and test that an earlier part has, which are added to `set_aside` and counted.

    Args:
        images: a set that brings its parts. Training images stay, since the model learns from them whatever is left
            out elsewhere.
    """
    first = first_of_equals(images)
    if not first:
        return images
    kept: dict[str, Sample] = {}
    for part in PARTS:
        for sample in sorted(images.part(part), key=lambda sample: (len(sample.path), sample.path)):
            kept.setdefault(first.get(sample.path, sample.path), sample)
    leaks = {
        sample.path: kept[original] for sample in images.samples
        if kept[original := first.get(sample.path, sample.path)].part != sample.part
    }  # fmt: skip
    left = replace(images, samples=tuple(sample for sample in images.samples if sample.path not in leaks))
    left = replace(left, notes=(*images.notes, *contradictions(images, first)))
    if not leaks:
        return left
    named = listed((f"{printable(path)} is {printable(other.path)}" for path, other in leaks.items()), 3)
    warning = f"Images of val and test that an earlier part has, and that are left out: {len(leaks):,} ({named})."
    aside = [(printable(path), f"a copy of {printable(other.path)}, in {other.part}") for path, other in leaks.items()]
    return replace(left, set_aside=tuple(sorted([*images.set_aside, *aside])), warnings=(*images.warnings, warning))


def contradictions(images: ImageSet, first: Mapping[str, str]) -> list[str]:
    """A note on copies that have another class than what they are a copy of, if there are any."""
    label_of = {sample.path: sample.label for sample in images.samples}
    conflicts = sorted(path for path, original in first.items() if label_of[path] != label_of[original])
    named = listed(map(printable, conflicts), 3)
    return (
        [
            f"Copies that have another class than their original: {len(conflicts):,} ({named}); `lensmith data check` "
            "names each."
        ]
        if conflicts
        else []
    )


def _grouped(keys: Iterable[tuple[str, Hashable]]) -> list[list[str]]:
    """Paths that share a key, for the keys that are no None and that several have."""
    groups = defaultdict(list)
    for path, key in keys:
        if key is not None:
            groups[key].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _tail(file: Path) -> bytes | None:
    """The last bytes of a file, or of the one that a crop is of; None if it cannot be read."""
    file = picture_of(file)
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
            return stream.read(_TAIL_BYTES)
    except OSError:
        return None


def _can_be_decoded(file: Path) -> bool:
    try:
        decode(read(file))
    except ImageError:
        return False
    return True
