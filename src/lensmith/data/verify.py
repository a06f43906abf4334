"""Data check: unreadable files, duplicates, label conflicts and data leakage between train, val and test.

Each image is decoded completely, so truncated files are found, and its pixels are hashed, so copies are found under any
name, with any metadata and in any lossless format.
"""

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from lensmith.config.values import Layout
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.data.consensus import Contested
from lensmith.data.corrections import from_files
from lensmith.data.files import printable
from lensmith.data.groups import group_leaks, series_hint, with_groups
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.inspected_files import InspectedFile, inspect_files
from lensmith.data.near_copies.page import require_place, write_page
from lensmith.data.near_copies.search import NearCopy, find_near_copies, near_warnings
from lensmith.data.scan import scan
from lensmith.data.value_ranges import darker_files, describe_mixed, mixed_files, ranges_of
from lensmith.imaging.value_range import ValueRange, ValueStatistics, contradiction, number

Kind = Literal["label conflict", "leak", "unreadable", "value range", "empty", "duplicate", "near copy", "set aside"]
KINDS: dict[Kind, str] = {
    "label conflict": "the same image under two classes",
    "leak": "the same image in two parts, or images of one group",
    "unreadable": "cannot be decoded",
    "value range": "its values are of another range than those of most files",
    "empty": "has no content",
    "duplicate": "the same image twice in one class",
    "near copy": "another image resized, encoded anew, mirrored, turned or cropped",
    "set aside": "not an image, or in the wrong place",
}
"""Kinds of findings with their meaning, the most serious first."""

FEW_IMAGES = 4
"""A class with fewer images cannot fill three parts and still have two to train on."""
IMBALANCE = 10
"""Size of the largest class divided by the smallest from which on a warning is given."""


@dataclass(frozen=True)
class FileFinding:
    """A problem with one image file.

    Attributes:
        path: path of the file, relative to the set's root.
        kind: kind of the problem, one of `KINDS`.
        reason: the problem in words.
    """

    path: str
    kind: Kind
    reason: str


@dataclass(frozen=True)
class PixelRange:
    """Widths or heights of all usable images, in pixels."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class DataCheckResult(Result):
    """Result of `lensmith data check`.

    Attributes:
        path: folder or CSV that was checked.
        images: number of image files, readable or not.
        usable: number of image files that can be decoded.
        counts: class → part (`all` while unsplit) → number of usable images.
        width: widths in pixels; None if no image is usable.
        height: heights in pixels; None if no image is usable.
        formats: file format (JPEG, PNG, …) → number of usable images.
        modes: pixel mode in the file (RGB, L, P, CMYK, …) → number of usable images.
        value_ranges: kind of values (uint16, float32, …) → stored values of black and white, decided from the training
            part; only of kinds whose range no file tells, so none where all files are of 8 bits.
        findings: files with problems, the most serious first.
        warnings: sentences about problems of the set as a whole.
        notes: sentences about how the set was read.
        junk: number of files of systems and programs that are left out, by name.
        contested: images that are left out since their labels contradict each other; each is also a finding.
        unlabelled: path of each image without a label that an annotation source has, relative to its root.
        near_copies: pairs of copies, those in two parts first; None: not searched for.
        near_page: HTML file with the pairs side by side; None as for `near_copies`.
        excluded: paths of images that --exclude leaves out.
        relabelled: path, label before and label after of each image to which --relabel gives another label.
    """

    computed: ClassVar[tuple[str, ...]] = ("problems",)

    path: Path
    images: int
    usable: int
    counts: dict[str, dict[str, int]]
    width: PixelRange | None
    height: PixelRange | None
    formats: dict[str, int]
    modes: dict[str, int]
    value_ranges: dict[str, ValueRange]
    findings: tuple[FileFinding, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    junk: Mapping[str, int]
    contested: tuple[Contested, ...]
    unlabelled: tuple[str, ...]
    near_copies: tuple[NearCopy, ...] | None = None
    near_page: Path | None = None
    excluded: tuple[str, ...] = ()
    relabelled: tuple[tuple[str, str, str], ...] = ()

    @property
    def problems(self) -> int:
        """Number of findings."""
        return len(self.findings)


def check(
    path: str | os.PathLike[str],
    layout: Layout = "auto",
    exclude: Path | None = None,
    relabel: Path | None = None,
    group: str = "none",
    near_page: Path | None = None,
) -> DataCheckResult:
    """Decode and hash every file of an image folder or CSV; a bad file is a finding, not an error.

    Args:
        path: path of the folder or CSV.
        layout: how folders are read where their names can be parts and classes.
        exclude: list of images to leave out; see `data.corrections`.
        relabel: list of images with new labels.
        group: how groups are found; see `data.groups`.
        near_page: HTML file for the page of near copies; None: they are not searched for.

    Raises:
        DataError: no image set of two classes or more, a list of another set, or groups that cannot be found.
    """
    images = with_groups(from_files(exclude, relabel)(scan(path, layout=layout)), group)
    if near_page is not None:
        require_place(near_page)
    files = list(track(inspect_files(images), "checking images", len(images.samples)))
    usable = [file for file in files if file.error is None]
    levels = {file.sample: file.levels for file in usable if file.levels is not None}
    value_ranges = ranges_of(levels)
    contested = {each.path for each in images.contested}
    near = None if near_page is None else find_near_copies(images)
    findings = [
        *(FileFinding(name, _kind_of_unused(name, reason, contested), reason) for name, reason in images.set_aside),
        *(FileFinding(file.sample.path, "unreadable", file.error) for file in files if file.error is not None),
        *_find_copies(images, usable),
        *(FileFinding(name, "leak", reason) for name, reason in group_leaks(images)),
        *_find_other_ranges(levels, value_ranges),
        *_describe_near(images, [pair for pair in near or () if pair.kind == "near"]),
    ]  # fmt: skip
    findings.sort(key=lambda finding: (list(KINDS).index(finding.kind), finding.path))
    counts = _counts(images, [file.sample for file in usable])
    if near_page is not None:
        write_page(images, near or (), near_page)
    return DataCheckResult(
        path=Path(path),
        images=len(files),
        usable=len(usable),
        counts=counts,
        width=_pixel_range([file.width for file in usable]),
        height=_pixel_range([file.height for file in usable]),
        formats=dict(Counter(file.format for file in usable).most_common()),
        modes=dict(Counter(file.mode for file in usable).most_common()),
        value_ranges=value_ranges,
        findings=tuple(findings),
        warnings=(*_warnings(images, counts, findings, levels), *near_warnings(near or ())),
        notes=(*images.notes, *series_hint(images)),
        junk=dict(images.junk),
        contested=images.contested,
        unlabelled=images.unlabelled,
        near_copies=near,
        near_page=near_page,
        excluded=images.excluded,
        relabelled=images.relabelled,
    )


def _find_copies(images: ImageSet, files: Iterable[InspectedFile]) -> Iterator[FileFinding]:
    """A finding for every file with the pixels of an earlier one: label conflict, data leakage or duplicate."""
    earlier: dict[str, list[InspectedFile]] = defaultdict(list)
    for file in files:
        sample, others = file.sample, earlier[file.pixels]
        if others:
            kind: Kind = "duplicate"
            other = next((found for found in others if found.sha256 == file.sha256), others[0])
            if conflicts := [found for found in others if found.sample.label != sample.label]:
                kind, other = "label conflict", conflicts[0]
            elif leaks := [found for found in others if found.sample.part != sample.part]:
                kind, other = "leak", leaks[0]
            what = "content" if other.sha256 == file.sha256 else "pixels"
            reason = f"{_label_and_part(images, sample)} here; the same {what} as {other.sample.path}"
            if kind != "duplicate":
                reason += f", which is {_label_and_part(images, other.sample)}"
            yield FileFinding(sample.path, kind, reason)
        others.append(file)


def _describe_near(images: ImageSet, copies: Iterable[NearCopy]) -> Iterator[FileFinding]:
    """A finding for the second image of every pair."""
    samples = {sample.path: sample for sample in images.samples}
    for pair in copies:
        first, second = map(samples.__getitem__, pair.paths)
        here, there = _label_and_part(images, second), f"{printable(first.path)}, {_label_and_part(images, first)}"
        yield FileFinding(second.path, "near copy", f"{here} here; {pair.similarity:.1%} like {there}")


def _kind_of_unused(path: str, reason: str, contested: Collection[str]) -> Kind:
    """Kind of the finding for a file that is set aside, where the paths of contested images are known."""
    if path in contested:
        return "label conflict"
    return "empty" if reason.startswith("empty") else "set aside"


def _find_other_ranges(
    levels: Mapping[Sample, ValueStatistics], value_ranges: Mapping[str, ValueRange]
) -> Iterator[FileFinding]:
    """A finding for every file of the smaller group where ranges are mixed, else for those outside the set's range."""
    odd: dict[str, str] = {}
    for kind, lower, upper in mixed_files(levels):
        few, many = map(set, sorted((lower, upper), key=len))
        others = [each for sample, each in levels.items() if sample.path in many and each.kind == kind]
        usual = f"{number(min(each.low for each in others))} to {number(max(each.high for each in others))}"
        odd |= dict.fromkeys(few, f"and those of {len(many):,} other files {usual}")
    for sample, each in levels.items():
        value_range = value_ranges.get(each.kind)
        against = odd.get(sample.path)
        if against is None and value_range is None:
            against = "and no training image has such values"
        elif against is None and value_range is not None and contradiction(each, value_range):
            against = f"and the training images' range is {number(value_range[0])} to {number(value_range[1])}"
        if against:
            own = f"its {each.kind} values are {number(each.low)} to {number(each.high)}"
            yield FileFinding(sample.path, "value range", f"{own}, {against}")


def _label_and_part(images: ImageSet, sample: Sample) -> str:
    return f"{images.labels[sample.label]!r}" + (f" in {sample.part}" if sample.part else "")


def _counts(images: ImageSet, usable: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Class → part (or `all` while unsplit) → number of usable images; all parts of the set, with 0 where none is."""
    counts = replace(images, samples=tuple(usable)).counts()
    return {label: {part: row.get(part, 0) for part in images.parts or ("all",)} for label, row in counts.items()}


def _pixel_range(pixels: Sequence[int]) -> PixelRange | None:
    return PixelRange(min(pixels), statistics.median(pixels), max(pixels)) if pixels else None


def _warnings(
    images: ImageSet,
    counts: dict[str, dict[str, int]],
    findings: Sequence[FileFinding],
    levels: Mapping[Sample, ValueStatistics],
) -> Iterator[str]:
    totals = {label: sum(row.values()) for label, row in counts.items()}
    if few := [label for label, total in totals.items() if total < FEW_IMAGES]:
        yield f"Fewer than {FEW_IMAGES} usable images: {listed(few)}. Such classes can hardly be learnt or evaluated."
    largest, smallest = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
    if totals[largest] >= IMBALANCE * max(1, totals[smallest]):
        yield (
            f"Strong imbalance: {largest} has {totals[largest]:,} usable images, {smallest} has {totals[smallest]:,}. "
            "Evaluate by balanced accuracy or F1 rather than by accuracy."
        )
    for part in images.parts:
        if missing := [label for label, row in counts.items() if not row[part] and totals[label]]:
            yield f"No usable image in {part}: {listed(missing)}."
    if problem := describe_mixed(levels):
        yield f"{problem[0]} Such a set is not trained on: save all files in one range, for example as 8-bit PNG."
    if darker := darker_files(levels):
        yield f"Much darker than all others, perhaps of another value range: {listed(darker)}."
    yield from images.warnings
    kinds = {finding.kind for finding in findings}
    contested = {each.path for each in images.contested}  # which are left out, and named above
    if any(each.kind == "label conflict" and each.path not in contested for each in findings):
        yield "Images under two classes contradict each other in training: keep each under one class."
    if "leak" in kinds:
        yield (
            "Data leakage: images, or groups, in two parts make the result look better than it is. Training leaves "
            "copies out of val and test where an earlier part has them, but not the other images of a group: put each "
            "group into one part."
        )
    if "duplicate" in kinds:
        yield "Copies in one class count several times in training and in figures: keep one of each."
