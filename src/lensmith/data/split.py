"""Train/validation/test split: seeded and stratified by class, written as a manifest; no image is copied.

The order within a class comes from a hash of the seed and the path, so an image's part depends neither on the order of
the files nor on the other classes. Images of one group (`data.groups`), and files of equal content, stay together;
`data.division` says how. Of a split that the data brings, the earliest part keeps copies. An older manifest's parts
stay: only images that it does not name are divided.
"""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lensmith.config import SplitSettings
from lensmith.config.values import Layout
from lensmith.core.csv_text import require_csv_name
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.data.consensus import Contested
from lensmith.data.copies import contradictions, first_of_equals, without_leaks
from lensmith.data.corrections import Correct, from_files, unchanged
from lensmith.data.division import Ratio, divide, rank, units_of
from lensmith.data.folds import assign_folds, fold_counts
from lensmith.data.groups import leak_warning, with_groups
from lensmith.data.image_set import PARTS, ImageSet
from lensmith.data.manifest import OlderManifest, manifest_text, with_manifest, write_manifest
from lensmith.data.part_names import Part
from lensmith.data.readable import without_unreadable
from lensmith.data.scan import MANIFEST, scan
from lensmith.errors import DataError, OutputError, SettingsError

__all__ = ["Ratio", "SplitResult", "assign", "prepare", "rank", "split"]

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
        contested: images that are left out since their labels contradict each other.
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
    contested: tuple[Contested, ...] = ()


def split(settings: SplitSettings, parts_from: Path | None = None) -> SplitResult:
    """Write a manifest that assigns a part to every readable image; a split that the folder brings is used unchanged.

    Args:
        settings: the verb's settings.
        parts_from: another manifest, whose images keep their parts.

    Raises:
        DataError: a folder that cannot be used.
        OutputError: another manifest exists, and `overwrite` is off.
        SettingsError: the manifest's name ends in that of another format than CSV.
    """
    if settings.out is not None and settings.out.suffix:
        require_csv_name(settings.out, "--out")
    source = settings.folder
    correct = from_files(settings.exclude, settings.relabel)
    manifest = settings.out or (source.parent if source.is_file() else source) / MANIFEST
    found = scan(source, manifest=False, layout=settings.layout)
    found = replace(found, set_aside=tuple(each for each in found.set_aside if each[0] != MANIFEST))
    kept: dict[str, Part] = {}
    older: OlderManifest | None = None
    is_older = manifest.is_file() and not (source.is_file() and manifest.samefile(source))
    if is_older and settings.cv is None and not settings.overwrite:
        older = OlderManifest.read(manifest)
        found, kept = with_manifest(found, older)
    elif parts_from is not None:
        with suppress(OutputError):  # none of its images is left
            kept = OlderManifest.read(parts_from).parts(found)
    found = with_groups(without_unreadable(correct(found)), settings.group)
    kept = {sample.path: kept[sample.path] for sample in found.samples if sample.path in kept}
    if settings.cv is None:
        images = _split_if_needed(found, settings.ratio, settings.seed, kept)
    else:
        images = assign_folds(found, settings.cv, settings.seed)
    written = write_manifest(manifest, manifest_text(images, manifest, older), settings.overwrite or bool(kept))
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
        images.contested,
    )


def prepare(
    path: str | os.PathLike[str],
    ratio: Ratio,
    seed: int,
    layout: Layout = "auto",
    correct: Correct = unchanged,
    group: str = "none",
    cv: int | None = None,
) -> ImageSet:
    """Read an image set with training and validation images; test images never become either.

    Corrections come first; then images that cannot be decoded are left out. A set without a split, or with training
    images alone, is split by `ratio`. One without validation images gets them from the training images. Any other is
    unchanged.

    Args:
        path: image folder or CSV.
        ratio: shares of train, val and test.
        seed: seed of the order within a class.
        layout: how folders are read.
        correct: what leaves images out and gives others new labels; see `data.corrections`.
        group: how groups are found; see `data.groups`.
        cv: number of folds; the set is then not split but divided into folds, as `data.folds.assign_folds` does.

    Raises:
        DataError: a set that cannot be used, has no training images, or is too small to validate on; or groups that
            cannot be found.
        SettingsError: a ratio without a share for training.
    """
    found = with_groups(without_unreadable(correct(scan(path, layout=layout))), group)
    if cv is not None:
        return assign_folds(found, cv, seed)
    images = _split_if_needed(found, ratio, seed)
    return images if "val" in images.parts else _with_validation(images, seed)


def assign(images: ImageSet, ratio: Ratio, seed: int, kept: Mapping[str, Part] | None = None) -> ImageSet:
    """Assign a part to every image, whatever part it had: each class is divided by `ratio`, each group whole.

    A class without groups is divided to within one image. What is left after rounding down goes first to training,
    then to parts that would stay empty, then to the part that lost most by rounding. So a class of one image trains
    only, and one of two trains and validates. Copies count once: each has the part of the image that it is a copy of,
    also where that is in another class.

    Args:
        images: the set.
        ratio: shares of train, val and test.
        seed: seed of the order within a class.
        kept: path → part of the images whose part stays; their groups get it, and the rest of a class is divided so
            that the whole comes near to the ratio.

    Raises:
        SettingsError: a ratio without a share for training.
    """
    if not all(map(math.isfinite, ratio)) or ratio[0] <= 0:
        raise SettingsError(
            "A ratio train:val:test was expected that leaves a share for training.",
            f"{_ratio_text(ratio)} arrived.",
            "Give one such as 5:3:2, or 8:2:0 to have no test part.",
        )
    kept = kept or {}
    first = first_of_equals(images)
    part_of = divide(units_of(images, first, kept), ratio, seed) | dict(kept)
    samples = [replace(sample, part=part_of[sample.path]) for sample in images.samples]
    divided = replace(images, samples=tuple(sorted(samples, key=lambda sample: sample.path)))
    wanted = [part for part, share in zip(PARTS, ratio, strict=True) if share > 0]
    notes = (
        *images.notes,
        _division_note(divided, ratio, seed, kept),
        *_copies_notes(images, first),
        *_missing_class_notes(divided, wanted),
    )
    return replace(divided, notes=notes, warnings=(*images.warnings, *(leak_warning(divided) if kept else ())))


def _division_note(images: ImageSet, ratio: Ratio, seed: int, kept: Mapping[str, Part]) -> str:
    if not kept:
        return f"Split {_ratio_text(ratio)} class by class with seed {seed}: {_counts_text(images)}."
    new = len(images.samples) - len(kept)
    if not new:
        return f"No image is new, and all parts stay: {_counts_text(images)}. --overwrite divides anew."
    return (
        f"New images that are divided {_ratio_text(ratio)} class by class: {new:,}; {len(kept):,} stay in their parts. "
        f"Together: {_counts_text(images)}."
    )


def _split_if_needed(images: ImageSet, ratio: Ratio, seed: int, kept: Mapping[str, Part] | None = None) -> ImageSet:
    """Split a set that has no split (or only training images); take missing validation images from the training."""
    if "train" in images.parts[:-1]:
        images = without_leaks(images)
    existing = images.parts
    if not existing or existing == ("train",):
        return assign(images, ratio, seed, kept)
    if "train" not in existing:
        raise DataError(
            f"Training images were expected in {images.root}.",
            f"It has {' and '.join(existing)} only.",
            "Add a train folder (or split) beside, or give a folder without a split to have it split.",
        )
    note = f"Split that the data brings: {_counts_text(images)}."
    notes = (*images.notes, note, *_missing_class_notes(images, existing))
    images = replace(images, notes=notes, warnings=(*images.warnings, *leak_warning(images)))
    return images if "val" in existing else _with_validation(images, seed, kept)


def _with_validation(images: ImageSet, seed: int, kept: Mapping[str, Part] | None = None) -> ImageSet:
    """Move a share of every class's training images to validation."""
    training = replace(images, samples=images.part("train"))
    here = {sample.path for sample in training.samples}
    stays = {path: part for path, part in (kept or {}).items() if path in here and part != "test"}
    divided = assign(training, (1 - VALIDATION_SHARE, VALIDATION_SHARE, 0), seed, stays)
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
