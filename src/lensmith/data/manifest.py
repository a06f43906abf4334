"""Manifests: the CSV that gives each image of a set its label, part, group and fold; written, and extended later."""

import os
from dataclasses import replace
from pathlib import Path

from lensmith.core.csv_text import csv_text, is_same_file, paths_from, require_free
from lensmith.core.files import atomic_write
from lensmith.core.text import listed
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.part_names import Part
from lensmith.data.scan import scan
from lensmith.errors import DataError, OutputError
from lensmith.imaging.crops import picture_of


def manifest_text(images: ImageSet, manifest: Path) -> str:
    """The CSV of an image set whose images have parts, with paths relative to the folder of `manifest`."""
    path = paths_from(images.root, manifest.parent)
    rows = (
        (path(each.path), images.labels[each.label], each.part, each.group, "" if each.fold is None else each.fold)
        for each in images.samples
    )
    return csv_text(("path", "label", "split", "group", "fold"), rows, optional=("group", "fold"))


def write_manifest(manifest: Path, text: str, overwrite: bool) -> bool:
    """Write the manifest; False if the same one exists already."""
    if is_same_file(manifest, text):
        return False
    require_free(manifest, text, overwrite)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(manifest, text)
    return True


def with_manifest(images: ImageSet, manifest: Path) -> tuple[ImageSet, dict[str, Part]]:
    """The set with what an older manifest says about its images, and the parts of these.

    Labels and groups of the manifest hold, since people mend them there.

    Raises:
        OutputError: the file is no manifest of lensmith.
    """
    try:
        before = scan(manifest)
        if not before.parts:
            raise DataError("A column split was expected.", "It has no column split", "Name another.")
        if any(sample.fold is not None for sample in before.samples):
            raise DataError("A manifest without folds was expected.", "It has cross-validation folds", "Name another.")
    except DataError as error:
        raise OutputError(
            f"A free path, or an older manifest, was expected for the manifest {manifest}.",
            f"Another file is there ({error.arrived.rstrip('.')}).",
            "Replace it with --overwrite, or name another with --out.",
        ) from error
    there = {os.path.realpath(before.file(sample)): sample for sample in before.samples}
    labels = tuple(sorted({*images.labels, *before.labels}))
    index = {label: number for number, label in enumerate(labels)}
    samples, kept, relabelled = [], {}, []
    for sample in images.samples:
        old, label = there.get(os.path.realpath(images.file(sample))), images.labels[sample.label]
        if old is not None:
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
    found = replace(images, labels=labels, samples=tuple(samples), notes=tuple(notes))
    return _with_used_labels(found, used), kept


def _with_used_labels(images: ImageSet, used: set[int]) -> ImageSet:
    """The set without the classes that no image has."""
    index = {number: place for place, number in enumerate(sorted(used))}
    samples: tuple[Sample, ...] = tuple(replace(sample, label=index[sample.label]) for sample in images.samples)
    return replace(images, labels=tuple(images.labels[number] for number in sorted(used)), samples=samples)
