"""Manifests: the CSV that gives each image of a set its label, part, group and fold; written, and extended later."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lensmith.core.csv_text import csv_text, is_same_file, paths_from, require_free
from lensmith.core.files import atomic_write
from lensmith.core.text import listed
from lensmith.data.consensus import Contested, contested_warnings
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.part_names import Part
from lensmith.data.scan import scan
from lensmith.data.table import path_below
from lensmith.data.table_cells import read_cells
from lensmith.errors import DataError, OutputError
from lensmith.imaging.crops import picture_of

OWN = ("path", "label", "split", "group", "fold")
"""Columns that lensmith writes anew; all others of an older manifest are copied."""


@dataclass(frozen=True)
class _OlderLine:
    """A line of an older manifest: its label, part and group, and the cells that are copied."""

    label: str
    part: str = ""
    group: str = ""
    further: Sequence[str] = ()


@dataclass(frozen=True)
class OlderManifest:
    """A manifest that is there before it is extended.

    Attributes:
        images: the images that it names.
        further: titles of the columns that are copied, such as annotator.
        annotator: place of the annotator among these; None: there is no such column.
        lines: real path of an image → its lines; several where several annotators labelled it.
    """

    images: ImageSet
    further: Sequence[str]
    annotator: int | None
    lines: Mapping[str, Sequence[_OlderLine]] = field(repr=False)

    @cached_property
    def samples(self) -> Mapping[str, Sample]:
        """Real path of an image → the image."""
        return {os.path.realpath(self.images.file(sample)): sample for sample in self.images.samples}

    @cached_property
    def contested(self) -> Mapping[str, Contested]:
        """Real path of an image that its own lines contest → the image."""
        return {os.path.realpath(self.images.root / each.path): each for each in self.images.contested}

    @classmethod
    def read(cls, manifest: Path) -> "OlderManifest":
        """Read a manifest.

        Raises:
            OutputError: the file is no manifest of lensmith.
        """
        try:
            images = scan(manifest)
            if not images.parts:
                raise DataError("A column split was expected.", "It has no column split", "Name another.")
            if any(sample.fold is not None for sample in images.samples):
                raise DataError(
                    "A manifest without folds was expected.", "It has cross-validation folds", "Name another."
                )
        except DataError as error:
            raise OutputError(
                f"A free path, or an older manifest, was expected for the manifest {manifest}.",
                f"Another file is there ({error.arrived.rstrip('.')}).",
                "Replace it with --overwrite, or name another with --out.",
            ) from error
        cells = read_cells(manifest)
        own = {cells.columns[name] for name in OWN if name in cells.columns}
        copied = [index for index, title in enumerate(cells.titles) if index not in own and title.strip()]
        annotator = cells.columns.get("annotator")
        lines = defaultdict(list)
        for _, row in cells.rows:
            path = os.path.realpath(images.root / path_below(images.root, cells.cell(row, "path")))
            label, part, group = (cells.cell(row, name).strip() for name in ("label", "split", "group"))
            lines[path].append(_OlderLine(label, part, group, [row[at] if at < len(row) else "" for at in copied]))
        place = None if annotator is None else copied.index(annotator)
        return cls(images, [cells.titles[index].strip() for index in copied], place, lines)

    def parts(self, images: ImageSet) -> dict[str, Part]:
        """Path → part of the images of another set that it names, whatever their labels."""
        found = {sample.path: self.samples.get(os.path.realpath(images.file(sample))) for sample in images.samples}
        return {path: old.part for path, old in found.items() if old is not None and old.part is not None}

    def copied(self, path: str, label: str) -> Sequence[_OlderLine]:
        """The lines of an image: as they are, or one where the label is another one than by theirs."""
        lines, old = self.lines.get(path, ()), self.samples.get(path)
        if not lines or (old is not None and self.images.labels[old.label] == label):
            return lines
        further = list(lines[0].further)
        if self.annotator is not None and lines[0].label != label:
            further[self.annotator] = ""  # who did not give that label
        return [replace(lines[0], label=label, further=further)]


def manifest_text(images: ImageSet, manifest: Path, older: OlderManifest | None = None) -> str:
    """The CSV of an image set whose images have parts.

    Args:
        images: the set.
        manifest: path of the CSV; paths in it are relative to its folder.
        older: the manifest that it extends, whose further columns, lines of several annotators and contested images are
            copied.
    """
    path, blank = paths_from(images.root, manifest.parent), [""] * len(older.further) if older else []
    rows = []
    for sample in images.samples:
        label, fold = images.labels[sample.label], "" if sample.fold is None else sample.fold
        lines = older.copied(os.path.realpath(images.file(sample)), label) if older else ()
        own = (sample.part, sample.group, fold)
        rows += [
            (path(sample.path), line.label, *own, *line.further) for line in lines or [_OlderLine(label, further=blank)]
        ]
    for left_out in images.contested if older else ():
        file = os.path.realpath(images.root / left_out.path)
        for line in older.lines[file] if older and file in older.contested else ():
            group = left_out.group or line.group
            rows.append((path(left_out.path), line.label, line.part, group, "", *line.further))
    columns = (*OWN, *older.further) if older else OWN
    return csv_text(columns, sorted(rows, key=lambda row: row[0]), optional=("group", "fold"))


def write_manifest(manifest: Path, text: str, overwrite: bool) -> bool:
    """Write the manifest; False if the same one exists already."""
    if is_same_file(manifest, text):
        return False
    require_free(manifest, text, overwrite)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(manifest, text)
    return True


def with_manifest(images: ImageSet, older: OlderManifest) -> tuple[ImageSet, dict[str, Part]]:
    """The set with what an older manifest says about its images, and the parts of these.

    Labels and groups of the manifest hold, since people mend them there, and what it contests is contested.
    """
    before = older.images
    labels = tuple(sorted({*images.labels, *before.labels}))
    index = {label: number for number, label in enumerate(labels)}
    samples, kept, relabelled, left_out = [], {}, [], []
    for sample in images.samples:
        path, label = os.path.realpath(images.file(sample)), images.labels[sample.label]
        if path in older.contested:
            left_out.append(replace(older.contested[path], path=sample.path))
            continue
        if (old := older.samples.get(path)) is not None:
            if before.labels[old.label] != label:
                relabelled.append(f"{printable(sample.path)} is {before.labels[old.label]}")
            label = before.labels[old.label]
            sample = replace(sample, group=old.group or sample.group)
            assert old.part is not None
            kept[sample.path] = old.part
        samples.append(replace(sample, label=index[label]))
    used = {sample.label for sample in samples}
    notes = [*images.notes]
    gone = len(before.samples) - len(kept)
    gone += sum(not picture_of(before.root / path).exists() for path, _ in before.set_aside)
    if gone:
        notes.append(f"Images of the older manifest that are gone: {gone:,}.")
    if relabelled:
        notes.append(f"Labels of the older manifest that hold: {len(relabelled):,} ({listed(relabelled, 3)}).")
    found = replace(
        images,
        labels=labels,
        samples=tuple(samples),
        notes=tuple(notes),
        warnings=(*images.warnings, *contested_warnings(left_out)),
        set_aside=tuple(sorted([*images.set_aside, *((each.path, each.reason) for each in left_out)])),
        contested=tuple(sorted([*images.contested, *left_out], key=lambda each: each.path)),
    )
    return _with_used_labels(found, used), kept


def _with_used_labels(images: ImageSet, used: set[int]) -> ImageSet:
    """The set without the classes that no image has."""
    index = {number: place for place, number in enumerate(sorted(used))}
    samples: tuple[Sample, ...] = tuple(replace(sample, label=index[sample.label]) for sample in images.samples)
    return replace(images, labels=tuple(images.labels[number] for number in sorted(used)), samples=samples)
