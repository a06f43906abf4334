"""Corrections of a set's labels without touching a file: lists of images to leave out, and of new labels.

    exclude    CSV with a column `path`, such as the label doctor's suspects.csv, of which the rows with `flagged` = no
               stay in the set; or text with one path a line
    relabel    CSV with the columns `path` and `label`

Paths are relative to the list's folder, or else to the folder of the images. A list that names no image of the set
belongs to another set, which is an error; single paths that are not in the set are named in a warning.
"""

import difflib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lensmith.core.labels import canonical_label, require_distinct
from lensmith.core.text import listed
from lensmith.data.consensus import Contested, contested_warnings
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.path_list import read_path_list
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of

SHOWN = 3
"""Images that a note names at most."""

CONTESTED = "(contested)"
"""Label before a correction of an image that was contested."""

Correct = Callable[[ImageSet], ImageSet]
"""Function from a set as it was read to the set that is used."""


@dataclass(frozen=True)
class _Row:
    number: int
    path: str
    label: str = ""


class Lists(NamedTuple):
    """What two lists say about some images.

    Attributes:
        excluded: paths of images to leave out.
        relabelled: path → label in canonical form; may be empty.
        warnings: sentences about paths that are not among the images.
    """

    excluded: frozenset[str]
    relabelled: dict[str, str]
    warnings: tuple[str, ...]


def unchanged(images: ImageSet) -> ImageSet:
    """The set itself: the correction where no list is given."""
    return images


def from_files(exclude: Path | None, relabel: Path | None) -> Correct:
    """The correction by two lists; either may be None.

    Args:
        exclude: list of images to leave out.
        relabel: list of images with their new labels. An image that both lists name is left out.

    Returns:
        A function that raises DataError for a list that cannot be read, that names no image of the set, that gives
        one image two labels, or one that only looks like a class of the set. Other labels are new classes.
    """

    def correct(images: ImageSet) -> ImageSet:
        """The set without excluded images, with new labels, and with notes and warnings about both."""
        crops: dict[str, list[str]] = defaultdict(list)
        for sample in images.samples:
            crops[picture_of(Path(sample.path)).as_posix()].append(sample.path)
        known = {sample.path: [sample.path] for sample in images.samples}
        known |= {each.path: [each.path] for each in images.contested}
        found = read_lists(exclude, relabel, images.root, known, crops)
        if relabel is not None:
            _require_labels(relabel, found.relabelled, images)
        corrected = apply(images, found.excluded, found.relabelled)
        added = _new_class_warnings(found.relabelled, images)
        return replace(corrected, warnings=(*corrected.warnings, *found.warnings, *added))

    return correct


def read_lists(
    exclude: Path | None,
    relabel: Path | None,
    root: Path,
    known: Mapping[str, Sequence[str]],
    crops: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Lists:
    """Read two lists about images below one folder; either may be None.

    Args:
        exclude: list of images to leave out.
        relabel: list of images with their labels.
        root: folder of the images.
        known: path that a line may name, relative to `root` → paths of its images.
        crops: path of a picture that `exclude` may name as well → paths of its crops.

    Raises:
        DataError: a list that cannot be read, that names none of the images, or gives one of them two labels.
    """
    excluded, relabelled, warnings = dict[str, str](), dict[str, str](), list[str]()
    if exclude is not None:
        excluded, missing = _match(exclude, _read(exclude, needs_label=False), root, {**crops, **known})
        warnings += _missing_warnings(exclude, missing)
    if relabel is not None:
        relabelled, missing = _match(relabel, _read(relabel, needs_label=True), root, known)
        warnings += _missing_warnings(relabel, missing)
    return Lists(frozenset(excluded), relabelled, tuple(warnings))


def apply(images: ImageSet, excluded: Iterable[str], relabelled: Mapping[str, str]) -> ImageSet:
    """The set without some images and with new labels for others; a class without an image left is dropped.

    A contested image with a new label is decided, and part of the set again.

    Args:
        images: the set as it was read.
        excluded: paths of samples to leave out; others are ignored.
        relabelled: path of a sample or contested image → its label, which may be a new class; other paths are ignored.

    Raises:
        DataError: fewer than two classes are left.
    """
    out = frozenset(excluded)
    kept: list[tuple[Sample, str]] = []
    changes = []
    contested = [each.path for each in images.contested]
    gone = tuple(path for path in (*(sample.path for sample in images.samples), *contested) if path in out)
    for sample in images.samples:
        if sample.path in out:
            continue
        before = images.labels[sample.label]
        after = relabelled.get(sample.path, before)
        if after != before:
            changes.append((sample.path, before, after))
        kept.append((sample, after))
    images, decided = _decided(images, out, relabelled)
    kept += ((Sample(each.path, 0, each.part, each.group), relabelled[each.path]) for each in decided)
    changes += ((each.path, CONTESTED, relabelled[each.path]) for each in decided)
    if not gone and not changes:
        return images
    used = sorted({label for _, label in kept})
    if len(used) < 2:
        raise DataError(
            f"Images of at least two classes were expected in {images.root} after the corrections.",
            f"{len(gone):,} of {len(images.samples):,} images are left out, and {len(used)} class is left."
            if used else "All images are left out.",
            "Shorten the list of --exclude.",
        )  # fmt: skip
    number = {label: index for index, label in enumerate(used)}
    lost = [label for label in images.labels if label not in number]
    warnings = [f"Classes without an image after corrections: {listed(lost)}."] if lost else []
    return replace(
        images,
        labels=tuple(used),
        samples=tuple(
            replace(sample, label=number[label]) for sample, label in sorted(kept, key=lambda each: each[0].path)
        ),
        notes=(*images.notes, *_notes(gone, changes)),
        warnings=(*images.warnings, *warnings),
        excluded=gone,
        relabelled=tuple(changes),
    )


def _decided(images: ImageSet, out: frozenset[str], relabelled: Mapping[str, str]) -> tuple[ImageSet, list[Contested]]:
    """The set with those images as contested that are neither excluded nor decided, and the ones that are decided."""
    parted = bool(images.parts)
    decided = [
        each for each in images.contested
        if each.path not in out and each.path in relabelled and (each.part is not None) == parted
    ]  # fmt: skip
    settled = out | {each.path for each in decided}
    left = tuple(each for each in images.contested if each.path not in settled)
    if len(left) == len(images.contested):
        return images, decided
    aside = tuple(each for each in images.set_aside if each[0] not in settled)
    before = contested_warnings(images.contested)
    warnings = (*contested_warnings(left), *(each for each in images.warnings if each not in before))
    return replace(images, contested=left, set_aside=aside, warnings=warnings), decided


def _notes(gone: Sequence[str], changes: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    if gone:
        yield f"Images that corrections leave out: {len(gone):,} ({listed(gone, SHOWN)})."
    if changes:
        named = listed((f"{path} from {before} to {after}" for path, before, after in changes), SHOWN)
        yield f"Images that corrections give another label: {len(changes):,} ({named})."


def _read(file: Path, needs_label: bool) -> list[_Row]:
    """The rows of a list.

    Raises:
        DataError: no text, no path in it, or not the columns that are needed.
    """
    name, form = ("--relabel", "a CSV with the columns path,label") if needs_label else (
        "--exclude", "a CSV with a column path, or one path a line,"
    )  # fmt: skip
    expected = f"A list of images, {form} was expected for {name} at {file}."
    found = read_path_list(file, expected)
    if needs_label and "label" not in found.columns:
        arrived = f"Its first line has {found.first_line[:200] or 'nothing'}."
        raise DataError(expected, arrived, "Name the columns in the first line.")
    if needs_label and "suggested" in found.columns:
        raise DataError(
            f"A list of decided labels, with the columns path,label, was expected for --relabel at {file}.",
            "A work list arrived: its labels are the present ones, and nobody has decided on its suggestions.",
            f"Decide with `lensmith review {file}`, or give the relabel.csv of `lensmith data doctor`.",
        )
    return [
        _Row(number, row["path"].strip(), row.get("label", "").strip() if needs_label else "")
        for number, row in found.rows if needs_label or row.get("flagged", "").strip().lower() != "no"
    ]  # fmt: skip


def _match(
    file: Path, rows: Sequence[_Row], images: Path, known: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """Path of the sample → label of its row; and paths that are not in the set.

    Args:
        file: path of the list.
        rows: rows of the list.
        images: folder of the images.
        known: path that a row may name → paths of its samples, which are several for a picture of several crops.

    Raises:
        DataError: two labels for one image, or no image of the set at all.
    """
    root, folder = os.path.realpath(images), os.path.realpath(file.parent)
    found: dict[str, str] = {}
    missing: list[str] = []
    first: dict[str, int] = {}
    for row in rows:
        written = Path(row.path if os.sep == "\\" or row.path in known else row.path.replace("\\", "/"))
        if written.is_absolute():
            written = Path(os.path.realpath(written.parent), written.name)
        below = Path(os.path.relpath(Path(folder, written), root)).as_posix()
        paths = next((known[each] for each in (below, os.path.normpath(written)) if each in known), ())
        label = canonical_label(row.label)
        if not paths:
            missing.append(row.path)
        for path in paths:
            if found.setdefault(path, label) != label:
                raise DataError(
                    f"One label for each image was expected in {file}.",
                    f"{path} has {found[path]!r} in line {first[path]} and {label!r} in line {row.number}.",
                    "Keep one of the lines.",
                )
            first.setdefault(path, row.number)
    if rows and not found:
        raise DataError(
            f"A list of images in {images} was expected at {file}.",
            f"None of its {len(rows):,} paths is one of them; the first is {rows[0].path}.",
            "Give the list that was made for these images; its paths are relative to its own folder.",
        )
    return found, missing


def _require_labels(file: Path, relabelled: Mapping[str, str], images: ImageSet) -> None:
    """Refuse empty labels, and those that look like another class without being it.

    Raises:
        DataError: there is such a label.
    """
    empty = next((path for path, label in relabelled.items() if not label), None)
    if empty is not None:
        arrived = f"The line of {empty} has no label."
        raise DataError(f"A label on each line was expected in {file}.", arrived, "Add it, or remove the line.")
    require_distinct({*images.labels, *relabelled.values()}, file)


def _new_class_warnings(relabelled: Mapping[str, str], images: ImageSet) -> Iterator[str]:
    """A sentence that names classes that come in by corrections, and the class that a typing error may have meant."""
    described = []
    for label, count in sorted(Counter(relabelled.values()).items()):
        if label not in images.labels:
            near = difflib.get_close_matches(label, images.labels, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            described.append(f"{label!r} ({count:,} {'image' if count == 1 else 'images'}{meant})")
    if described:
        yield f"Classes that corrections add: {listed(described)}."


def _missing_warnings(file: Path, missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    return [f"Paths in {file} that are not in the set: {len(missing):,} ({listed(missing, SHOWN)})."]
