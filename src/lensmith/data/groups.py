"""Groups: images that must not part, since what is known of one is known of all (patient, object, burst, video, page).

A group comes from a column of the manifest, which always holds, or else from the setting `group`:

    none             only the column, and copies of equal content, which the split keeps together anyway; a crop that
                     has no group is in that of its picture, here and below
    folder:N         the name of the folder at level N, counted from the set's root: in cat/tom/1.jpg, tom is level 2
    pattern:REGEX    what the regular expression's one group finds in the file's name without its ending; an expression
                     with a slash is searched in the whole path
    auto             copies: equal bytes, equal pixels, near copies (`data.near_copies`), each with its copies' copies

A name is one group wherever it stands: the pictures of patient P7 in two classes do not part. The split, folds and the
label doctor read `Sample.group` only.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lensmith.core.disjoint_sets import DisjointSets
from lensmith.core.text import listed
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.near_copies.search import copies_of
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of

SERIES_SHARE = 0.5
"""Share of the images in numbered series from which on a set looks like bursts or frames of videos."""
SERIES_LENGTH = 3
"""Smallest number of images with one name and running numbers that make a series."""


def with_groups(images: ImageSet, setting: str) -> ImageSet:
    """The set with `Sample.group` filled in where its own column left it empty, and a note on the groups.

    Args:
        images: the set, as it was read.
        setting: none, folder:N, pattern:REGEX or auto, as `config.values.Group` has checked it.

    Raises:
        DataError: no image has such a folder or name, or each class is one group, so that nothing could be divided.
    """
    kind, _, argument = setting.partition(":")
    if kind == "folder":
        found = _named(images, lambda path: _folder(path, int(argument)), _no_folder(images, int(argument)))
    elif kind == "pattern":
        found = _named(images, _finder(argument), _no_match(images, argument))
    elif kind == "auto":
        found = _with_copies(images)
    else:
        found = images
    found = _with_pictures(found)
    return replace(found, notes=(*found.notes, *_notes(found)))


def across_parts(images: ImageSet) -> dict[str, tuple[str, ...]]:
    """Each group that has images in several parts, with these parts in the order train, val, test."""
    parts = defaultdict(set)
    for sample in images.samples:
        if sample.group and sample.part is not None:
            parts[sample.group].add(sample.part)
    return {
        name: tuple(part for part in images.parts if part in found)
        for name, found in sorted(parts.items()) if len(found) > 1
    }  # fmt: skip


def group_leaks(images: ImageSet) -> list[tuple[str, str]]:
    """Path of the first image, and a sentence, for each group that has images in several parts.

    The image is one of the latest of the parts: the one whose figures promise too much.
    """
    crossing = across_parts(images)
    found: dict[str, tuple[str, str]] = {}
    for sample in images.samples:
        parts = crossing.get(sample.group, ())
        if parts and sample.part == parts[-1]:
            reason = (
                f"{images.labels[sample.label]!r} in {sample.part}; its group is also in {' and '.join(parts[:-1])}"
            )
            found.setdefault(sample.group, (sample.path, f"{reason}: {printable(sample.group)}"))
    return list(found.values())


def leak_warning(images: ImageSet) -> list[str]:
    """A warning that names groups with images in several parts, if there are any."""
    crossing = across_parts(images)
    if not crossing:
        return []
    named = listed((f"{printable(name)} in {' and '.join(parts)}" for name, parts in crossing.items()), 3)
    return [
        f"Data leakage: groups with images in several parts: {len(crossing):,} ({named}). Figures on val and test "
        "promise too much: put each group into one part, or have the images without parts split anew."
    ]


def series_hint(images: ImageSet) -> list[str]:
    """A sentence for a set without groups whose file names look like bursts or frames; none for others.

    A series is three files or more in one folder whose names differ in a last number alone, such as `tom_001.jpg`;
    several series must be in a class, since a class of one series is merely numbered.
    """
    if any(sample.group for sample in images.samples):
        return []
    series: dict[tuple[int, str, str], int] = Counter()
    for sample in images.samples:
        path = _picture(sample.path)
        if match := re.fullmatch(r"(.*\D)\d+", path.stem):
            series[sample.label, str(path.parent), match[1]] += 1
    of_class = Counter(label for (label, _, _), count in series.items() if count >= SERIES_LENGTH)
    inside = sum(
        count for (label, _, _), count in series.items() if count >= SERIES_LENGTH and of_class[label] > 1
    )  # fmt: skip
    if inside < SERIES_SHARE * len(images.samples):
        return []
    names = sorted({(folder, stem) for (label, folder, stem), count in series.items() if count >= SERIES_LENGTH})
    shown = listed((f"{printable(f'{folder}/{stem}')}…" for folder, stem in names), 3)
    return [
        f"File names look like bursts or frames of videos: {len(names):,} numbered series ({shown}). Where the images "
        "of a series show one thing, figures promise too much unless it stays together: "
        r"--group 'pattern:(.*/.*\D)\d+$'"
    ]


def _named(images: ImageSet, name_of: Callable[[str], str | None], none: DataError) -> ImageSet:
    """The set with the groups that a function finds in paths.

    Raises:
        DataError: `none`, where no image has a group; or each class is one group.
    """
    samples = tuple(
        sample if sample.group else replace(sample, group=name_of(sample.path) or "") for sample in images.samples
    )
    if not any(sample.group for sample in samples):
        raise none
    if images.parts in ((), ("train",)):  # which is going to be divided
        _require_several(images, samples)
    return replace(images, samples=samples)


def _folder(path: str, level: int) -> str | None:
    folders = _picture(path).parts[:-1]
    return folders[level - 1] if level <= len(folders) else None


def _finder(pattern: str) -> Callable[[str], str | None]:
    expression = re.compile(pattern)

    def find(path: str) -> str | None:
        picture = _picture(path)
        text = picture.as_posix().removesuffix(picture.suffix)
        match = expression.search(text if "/" in pattern else text.rpartition("/")[2])
        return match[1] if match else None

    return find


def _picture(path: str) -> Path:
    """The picture that a path names, or of which it names a crop."""
    return picture_of(Path(path))


def _with_copies(images: ImageSet) -> ImageSet:
    """The set with copies as groups: the one that some of them are in already, or one named by the first one's path.

    Groups that have copies of each other become one, since copies must not part whatever a column says.
    """
    first = copies_of(images)
    joined, names = DisjointSets(), dict[str, str]()
    for sample in images.samples:
        if sample.group and sample.path in first:
            joined.join(f"copies:{first[sample.path]}", f"group:{sample.group}")
    for sample in images.samples:
        if sample.group:
            names.setdefault(joined.find(f"group:{sample.group}"), sample.group)

    def group(sample: Sample) -> str:
        copied = first.get(sample.path, "")
        return names.get(joined.find(f"group:{sample.group}" if sample.group else f"copies:{copied}"), copied)

    return replace(images, samples=tuple(replace(sample, group=group(sample)) for sample in images.samples))


def _with_pictures(images: ImageSet) -> ImageSet:
    """The set in which a crop without a group has that of its picture, which is named by its path if it has none."""
    cut = {_picture(sample.path) for sample in images.samples if "#xywh=" in sample.path}
    group: dict[Path, str] = {}
    for sample in images.samples if cut else ():
        if sample.group:
            group.setdefault(_picture(sample.path), sample.group)

    def group_of(sample: Sample) -> str:
        picture = _picture(sample.path)
        return group.get(picture, picture.as_posix()) if picture in cut else ""

    if not cut:
        return images
    return replace(images, samples=tuple(replace(each, group=each.group or group_of(each)) for each in images.samples))


def _require_several(images: ImageSet, samples: Sequence[Sample]) -> None:
    """Refuse groups that are the classes themselves."""
    groups = defaultdict(set)
    for number, sample in enumerate(samples):
        groups[sample.label].add(sample.group or str(number))
    if all(len(found) == 1 for found in groups.values()):
        raise DataError(
            f"Classes with several groups were expected in {images.root}, to be divided.",
            "Each class is one single group.",
            "Name what images of a class share: --group folder:N counts folders from the top, pattern:REGEX finds a "
            "name in the file's name.",
        )


def _notes(images: ImageSet) -> list[str]:
    sizes = Counter(sample.group for sample in images.samples if sample.group)
    if not sizes:
        return []
    classes = defaultdict(set)
    for sample in images.samples:
        classes[sample.group].add(sample.label)
    largest, most = max(sizes.items(), key=lambda item: (item[1], item[0]))
    several = sum(len(classes[name]) > 1 for name in sizes)
    alone = len(images.samples) - sum(sizes.values())
    note = f"Groups, whose images do not part: {len(sizes):,}, the largest of {most:,} images ({printable(largest)})"
    note += f"; with images of several classes: {several:,}" if several else ""
    note += f"; images in no group, each by itself: {alone:,}" if alone else ""
    return [f"{note}."]


def _no_folder(images: ImageSet, level: int) -> DataError:
    deepest = max(sample.path.count("/") for sample in images.samples)
    example = max((sample.path for sample in images.samples), key=lambda path: (path.count("/"), path))
    return DataError(
        f"Folders at level {level} were expected in {images.root}, as the groups.",
        f"The deepest image, {printable(example)}, lies {deepest} folders deep.",
        "Count from the image folder: in cat/tom/1.jpg, cat is level 1 and tom level 2.",
    )


def _no_match(images: ImageSet, pattern: str) -> DataError:
    some = listed((printable(os.path.basename(sample.path)) for sample in images.samples), 3)  # noqa: PTH119 - a text
    return DataError(
        f"File names in which {pattern!r} finds a group were expected in {images.root}.",
        f"It matches none of {len(images.samples):,}, such as {some}.",
        "The expression is searched in the name without its ending, or in the whole path where it has a slash.",
    )
