"""Which image trains, which validates and which tests: seeded, class by class, without copying a file.

The order within a class comes from a hash of the seed and the path, so an image's place depends neither on the order
of the files nor on the other classes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from lensmith.config import SplitSettings
from lensmith.data.scan import MANIFEST, PARTS, ImageSet, Part, Sample, scan
from lensmith.errors import DataError, OutputError, SettingsError

Ratio = tuple[float, float, float]
"""Shares of train, val and test; they need not sum to 1."""

VALIDATION_OF_TRAIN = 0.15
"""Share of the training part that validates where a set brings no validation part."""


@dataclass(frozen=True)
class Split:
    """A manifest that was written.

    Attributes:
        manifest: the CSV of path,label,split.
        counts: part → images.
        classes: class → part → images.
        written: False where the same manifest was there already.
        notes: what was done, in plain words.
    """

    manifest: Path
    counts: dict[str, int]
    classes: dict[str, dict[str, int]]
    written: bool
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "manifest": str(self.manifest),
            "counts": self.counts,
            "classes": self.classes,
            "written": self.written,
            "notes": list(self.notes),
        }


def split(settings: SplitSettings) -> Split:
    """Write a manifest that names a part for every image; parts that the folder brings are kept.

    Raises:
        DataError: the folder cannot be used.
        OutputError: another manifest is there, and `overwrite` was not said.
    """
    source = settings.folder
    images = _with_parts(scan(source, manifest=False), settings.ratio, settings.seed)
    manifest = settings.out or (source.parent if source.is_file() else source) / MANIFEST
    written = _write(manifest, _as_csv(images, manifest), settings.overwrite)
    counts: dict[str, int] = {part: len(images.part(part)) for part in images.parts}
    return Split(manifest, counts, images.counts(), written, images.notes)


def prepare(path: str | os.PathLike[str], ratio: Ratio, seed: int) -> ImageSet:
    """Read a set so that it has a training and a validation part; test images never become either.

    A set without parts, or with a training part alone, is split by `ratio`. One without a validation part gets it
    from the training part. Any other stays as it is.

    Raises:
        DataError: the set cannot be used, has no training part, or is too small to validate on.
        SettingsError: the ratio leaves nothing to train on.
    """
    images = _with_parts(scan(path), ratio, seed)
    return images if "val" in images.parts else _with_validation(images, seed)


def assign(images: ImageSet, ratio: Ratio, seed: int) -> ImageSet:
    """Give every image a part, whatever part it had: each class divided by `ratio` to within one image.

    What is left after rounding down goes first to training, then to parts that would stay empty, then to the part
    that lost most by rounding. So a class of one image trains only, and one of two trains and validates.

    Raises:
        SettingsError: the ratio leaves nothing to train on.
    """
    if not all(map(math.isfinite, ratio)) or ratio[0] <= 0:
        raise SettingsError(
            "A ratio train:val:test was expected that leaves a share for training.",
            f"{_said(ratio)} arrived.",
            "Give one such as 5:3:2, or 8:2:0 to have no test part.",
        )
    samples: list[Sample] = []
    for members in _by_class(images.samples).values():
        ordered = sorted(members, key=lambda sample: rank(sample.path, seed))
        parts = [part for part, count in zip(PARTS, _divide(len(ordered), ratio), strict=True) for _ in range(count)]
        samples += [replace(sample, part=part) for sample, part in zip(ordered, parts, strict=True)]
    divided = replace(images, samples=tuple(sorted(samples, key=lambda sample: sample.path)))
    wanted = [part for part, share in zip(PARTS, ratio, strict=True) if share > 0]
    note = f"Split {_said(ratio)} class by class with seed {seed}: {_counted(divided)}."
    return replace(divided, notes=(*images.notes, note, *_gaps(divided, wanted)))


def rank(path: str, seed: int) -> bytes:
    """Where a path stands in the seeded order of its class."""
    return hashlib.sha256(f"{seed}\n{path}".encode()).digest()


def _with_parts(images: ImageSet, ratio: Ratio, seed: int) -> ImageSet:
    """Split a set that brings no parts (or training alone); give one without validation a share of the training."""
    brought = images.parts
    if not brought or brought == ("train",):
        return assign(images, ratio, seed)
    if "train" not in brought:
        raise DataError(
            f"A training part was expected in {images.root}.",
            f"It has {' and '.join(brought)} only.",
            "Add a train folder (or split) beside, or give a folder without parts to have it split.",
        )
    note = f"Parts as the data brings them: {_counted(images)}."
    images = replace(images, notes=(*images.notes, note, *_gaps(images, brought)))
    return images if "val" in brought else _with_validation(images, seed)


def _with_validation(images: ImageSet, seed: int) -> ImageSet:
    """Move a share of every class's training images into the validation part."""
    training = replace(images, samples=images.part("train"))
    divided = assign(training, (1 - VALIDATION_OF_TRAIN, VALIDATION_OF_TRAIN, 0), seed)
    if "val" not in divided.parts:
        raise DataError(
            f"A class with two training images or more was expected in {images.root}, to validate on one of them.",
            "Every class has a single one.",
            "Add images.",
        )
    samples = sorted((*divided.samples, *images.part("test")), key=lambda sample: sample.path)
    note = (
        f"No validation part there: {VALIDATION_OF_TRAIN:.0%} of the training images validate, "
        f"class by class with seed {seed}: {_counted(divided)}. Test images are left alone."
    )
    return replace(images, samples=tuple(samples), notes=(*images.notes, note, *_gaps(divided, ("val",))))


def _divide(count: int, ratio: Ratio) -> list[int]:
    """How many of `count` images go to each part; every number is within one of its exact share."""
    shares = [Fraction(share).limit_denominator(1_000_000) for share in ratio]
    exact = [count * share / sum(shares) for share in shares]
    given = [math.floor(share) for share in exact]

    def claim(part: int) -> tuple[bool, bool, Fraction]:
        return part == 0 and given[part] == 0, given[part] == 0, exact[part] - given[part]

    claimants = sorted((part for part in range(3) if exact[part] > given[part]), key=claim, reverse=True)
    for part in claimants[: count - sum(given)]:
        given[part] += 1
    return given


def _by_class(samples: Iterable[Sample]) -> dict[int, list[Sample]]:
    classes = defaultdict(list)
    for sample in samples:
        classes[sample.label].append(sample)
    return classes


def _gaps(images: ImageSet, parts: Iterable[Part]) -> list[str]:
    """What the classes that lack one of `parts` mean for the reader."""
    meaning = {
        "train": "The model cannot learn these classes, which have no training image",
        "val": "Validation does not see these classes, which have too few images",
        "test": "The final evaluation does not see these classes, which have too few images",
    }
    notes = []
    for part in parts:
        present = {sample.label for sample in images.part(part)}
        missing = [label for index, label in enumerate(images.labels) if index not in present]
        if missing:
            rest = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            notes.append(f"{meaning[part]}: {', '.join(missing[:5])}{rest}.")
    return notes


def _counted(images: ImageSet) -> str:
    counts = Counter(sample.part for sample in images.samples)
    return ", ".join(f"{counts[part]:,} {part}" for part in PARTS if counts[part])


def _said(ratio: Ratio) -> str:
    return ":".join(f"{share:g}" for share in ratio)


def _as_csv(images: ImageSet, manifest: Path) -> str:
    root, folder = os.path.realpath(images.root), os.path.realpath(manifest.parent)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "split"))
    for sample in images.samples:
        path = os.path.relpath(Path(root, sample.path), folder)
        table.writerow((Path(path).as_posix(), images.labels[sample.label], sample.part))
    return text.getvalue()


def _write(manifest: Path, text: str, overwrite: bool) -> bool:
    """Write a whole file or none; False where the same text is there already."""
    if manifest.exists():
        if manifest.is_file() and manifest.read_bytes() == text.encode():
            return False
        if not overwrite or not manifest.is_file():
            raise OutputError(
                f"A free path was expected for the manifest {manifest}.",
                "A file that assigns the images differently is there."
                if manifest.is_file()
                else "Something else is there.",
                "Say --overwrite to replace it, or name another with --out.",
            )
    manifest.parent.mkdir(parents=True, exist_ok=True)
    partial = manifest.with_name(f".{manifest.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(manifest)
    finally:
        partial.unlink(missing_ok=True)
    return True
