"""Train/validation/test split: seeded and stratified by class, written as a manifest; no image is copied.

The order within a class comes from a hash of the seed and the path, so an image's part depends neither on the order of
the files nor on the other classes. Files of equal content stay together: only one of them is divided,
and the others take its part. Of a split that the data brings, the earliest part keeps them.
"""

import csv
import hashlib
import io
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from lensmith.config import SplitSettings
from lensmith.config.values import Layout
from lensmith.core.files import atomic_write
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.data.copies import contradictions, first_of_equals, without_leaks
from lensmith.data.corrections import Correct, from_files, unchanged
from lensmith.data.folds import assign_folds, fold_counts
from lensmith.data.image_set import PARTS, ImageSet
from lensmith.data.part_names import Part
from lensmith.data.readable import without_unreadable
from lensmith.data.scan import MANIFEST, scan
from lensmith.errors import DataError, OutputError, SettingsError

Ratio = tuple[float, float, float]
"""Shares of train, val and test; they need not sum to 1."""

VALIDATION_SHARE = 0.15
"""Share of the training images that validate where a set brings no validation images."""


@dataclass(frozen=True)
class SplitResult(Result):
    """Result of `lensmith data split`: the manifest and its counts.

    Attributes:
        folder: image folder or CSV that was split.
        manifest: path of the CSV of path,label,split.
        counts: part → number of images.
        classes: class → part → number of images.
        written: False if the same manifest existed already.
        notes: sentences for people about how the images were split.
        warnings: sentences about what is doubtful, or left out though it looks like images of the set.
        set_aside: path and reason of each file that is not in the manifest.
        junk: number of files of systems and programs that are left out, by name.
        excluded: paths of images that --exclude leaves out.
        relabelled: path, label before and label after of each image to which --relabel gives another label.
        folds: class → number of images in each cross-validation fold; empty without folds.
    """

    folder: Path
    manifest: Path
    counts: dict[str, int]
    classes: dict[str, dict[str, int]]
    written: bool
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    set_aside: tuple[tuple[str, str], ...] = ()
    junk: Mapping[str, int] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    relabelled: tuple[tuple[str, str, str], ...] = ()
    folds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def split(settings: SplitSettings) -> SplitResult:
    """Write a manifest that assigns a part to every readable image; a split that the folder brings is used unchanged.

    Raises:
        DataError: a folder that cannot be used.
        OutputError: another manifest exists, and `overwrite` is off.
        SettingsError: the manifest's name ends in that of another format than CSV.
    """
    if settings.out is not None and settings.out.suffix.lower() not in ("", ".csv"):
        raise SettingsError(
            "A manifest that ends in .csv was expected for --out, since it is CSV.",
            f"{settings.out} arrived.",
            f"Name it {settings.out.with_suffix('.csv').name}.",
        )
    source = settings.folder
    correct = from_files(settings.exclude, settings.relabel)
    found = without_unreadable(correct(scan(source, manifest=False, layout=settings.layout)))
    if settings.cv is None:
        images = _split_if_needed(found, settings.ratio, settings.seed)
    else:
        images = assign_folds(found, settings.cv, settings.seed)
    manifest = settings.out or (source.parent if source.is_file() else source) / MANIFEST
    written = _write_manifest(manifest, _as_csv(images, manifest), settings.overwrite)
    counts: dict[str, int] = {part: len(images.part(part)) for part in images.parts}
    return SplitResult(
        source,
        manifest,
        counts,
        images.counts(),
        written,
        images.notes,
        images.warnings,
        images.set_aside,
        dict(images.junk),
        images.excluded,
        images.relabelled,
        fold_counts(images, settings.cv) if settings.cv else {},
    )


def prepare(
    path: str | os.PathLike[str], ratio: Ratio, seed: int, layout: Layout = "auto", correct: Correct = unchanged
) -> ImageSet:
    """Read an image set with training and validation images; test images never become either.

    Corrections come first; then images that cannot be decoded are left out. A set without a split, or with training
    images alone, is split by `ratio`. One without validation images gets them from the training images. Any other is
    unchanged.

    Raises:
        DataError: a set that cannot be used, has no training images, or is too small to validate on.
        SettingsError: a ratio without a share for training.
    """
    images = _split_if_needed(without_unreadable(correct(scan(path, layout=layout))), ratio, seed)
    return images if "val" in images.parts else _with_validation(images, seed)


def assign(images: ImageSet, ratio: Ratio, seed: int) -> ImageSet:
    """Assign a part to every image, whatever part it had: each class is divided by `ratio` to within one image.

    What is left after rounding down goes first to training, then to parts that would stay empty, then to the part
    that lost most by rounding. So a class of one image trains only, and one of two trains and validates. Copies count
    once: each has the part of the image that it is a copy of, also where that is in another class.

    Raises:
        SettingsError: a ratio without a share for training.
    """
    if not all(map(math.isfinite, ratio)) or ratio[0] <= 0:
        raise SettingsError(
            "A ratio train:val:test was expected that leaves a share for training.",
            f"{_ratio_text(ratio)} arrived.",
            "Give one such as 5:3:2, or 8:2:0 to have no test part.",
        )
    first = first_of_equals(images)
    classes = defaultdict(list)
    for sample in sorted(images.samples, key=lambda sample: rank(sample.path, seed)):
        if sample.path not in first:
            classes[sample.label].append(sample)
    part_of: dict[str, Part] = {}
    for members in classes.values():
        counts = zip(PARTS, _divide(len(members), ratio), strict=True)
        parts = [part for part, count in counts for _ in range(count)]
        part_of.update((sample.path, part) for sample, part in zip(members, parts, strict=True))
    samples = [replace(sample, part=part_of[first.get(sample.path, sample.path)]) for sample in images.samples]
    divided = replace(images, samples=tuple(sorted(samples, key=lambda sample: sample.path)))
    wanted = [part for part, share in zip(PARTS, ratio, strict=True) if share > 0]
    note = f"Split {_ratio_text(ratio)} class by class with seed {seed}: {_counts_text(divided)}."
    notes = (*images.notes, note, *_copies_notes(images, first), *_missing_class_notes(divided, wanted))
    return replace(divided, notes=notes)


def rank(path: str, seed: int) -> bytes:
    """Sort key of a path in the seeded order of its class: 32 bytes of SHA-256."""
    return hashlib.sha256(f"{seed}\n{path}".encode()).digest()


def _split_if_needed(images: ImageSet, ratio: Ratio, seed: int) -> ImageSet:
    """Split a set that has no split (or only training images); take missing validation images from the training."""
    if "train" in images.parts[:-1]:
        images = without_leaks(images)
    existing = images.parts
    if not existing or existing == ("train",):
        return assign(images, ratio, seed)
    if "train" not in existing:
        raise DataError(
            f"Training images were expected in {images.root}.",
            f"It has {' and '.join(existing)} only.",
            "Add a train folder (or split) beside, or give a folder without a split to have it split.",
        )
    note = f"Split that the data brings: {_counts_text(images)}."
    images = replace(images, notes=(*images.notes, note, *_missing_class_notes(images, existing)))
    return images if "val" in existing else _with_validation(images, seed)


def _with_validation(images: ImageSet, seed: int) -> ImageSet:
    """Move a share of every class's training images to validation."""
    training = replace(images, samples=images.part("train"))
    divided = assign(training, (1 - VALIDATION_SHARE, VALIDATION_SHARE, 0), seed)
    if "val" not in divided.parts:
        raise DataError(
            f"A class with two training images or more was expected in {images.root}, to validate on one of them.",
            "Every class has a single one, where copies count once.",
            "Add images.",
        )
    samples = sorted((*divided.samples, *images.part("test")), key=lambda sample: sample.path)
    note = (
        f"The data brings no validation images: {VALIDATION_SHARE:.0%} of the training images validate, "
        f"class by class with seed {seed}: {_counts_text(divided)}. Test images are unchanged."
    )
    notes = (*images.notes, note, *_missing_class_notes(divided, ("val",)))
    return replace(images, samples=tuple(samples), notes=notes)


def _divide(count: int, ratio: Ratio) -> list[int]:
    """Number of images for each part, out of `count`; each is within one of its exact share."""
    shares = [Fraction(share).limit_denominator(1_000_000) for share in ratio]
    exact = [count * share / sum(shares) for share in shares]
    given = [math.floor(share) for share in exact]

    def priority(part: int) -> tuple[bool, bool, Fraction]:
        return part == 0 and given[part] == 0, given[part] == 0, exact[part] - given[part]

    claimants = sorted((part for part in range(3) if exact[part] > given[part]), key=priority, reverse=True)
    for part in claimants[: count - sum(given)]:
        given[part] += 1
    return given


def _copies_notes(images: ImageSet, first: Mapping[str, str]) -> list[str]:
    """A note on copies, with those that contradict each other's label."""
    if not first:
        return []
    named = listed((f"{path} is {original}" for path, original in sorted(first.items())), 3)
    note = f"Files with the content of another, which are put into its part: {len(first):,} ({named})."
    return [note, *contradictions(images, first)]


def _missing_class_notes(images: ImageSet, parts: Iterable[Part]) -> list[str]:
    """A note for each of `parts` that has no image of some classes."""
    meaning = {
        "train": "The model cannot learn these classes, which have no training image",
        "val": "Validation does not see these classes, which have too few images",
        "test": "The final evaluation does not see these classes, which have too few images",
    }
    counts = images.counts()
    missing = {part: [label for label, row in counts.items() if part not in row] for part in parts}
    return [f"{meaning[part]}: {listed(labels)}." for part, labels in missing.items() if labels]


def _counts_text(images: ImageSet) -> str:
    return ", ".join(f"{len(images.part(part)):,} {part}" for part in images.parts)


def _ratio_text(ratio: Ratio) -> str:
    return ":".join(f"{share:g}" for share in ratio)


def _as_csv(images: ImageSet, manifest: Path) -> str:
    root, folder = os.path.realpath(images.root), os.path.realpath(manifest.parent)
    grouped = any(sample.group for sample in images.samples)
    folded = any(sample.fold is not None for sample in images.samples)
    lines = [f"path,label,split{',group' * grouped}{',fold' * folded}\n"]
    for sample in images.samples:
        line = io.StringIO()  # which quotes carriage returns only where they end lines
        path = os.path.relpath(Path(root, sample.path), folder)
        csv.writer(line, lineterminator="\r\n").writerow(
            (
                Path(path).as_posix(),
                images.labels[sample.label],
                sample.part,
                *([sample.group] if grouped else []),
                *([sample.fold] if folded else []),
            )
        )
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def _write_manifest(manifest: Path, text: str, overwrite: bool) -> bool:
    """Write the manifest; False if the same one exists already."""
    if manifest.is_file() and manifest.read_bytes() == text.encode():
        return False
    if manifest.exists() and not (overwrite and manifest.is_file()):
        what = "A file that assigns the images differently" if manifest.is_file() else "Something else"
        raise OutputError(
            f"A free path was expected for the manifest {manifest}.",
            f"{what} is there.",
            "Replace it with --overwrite, or name another with --out.",
        )
    manifest.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(manifest, text)
    return True
