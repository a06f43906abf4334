"""Unlabelled pictures of a run: found without copies of its images, and recorded where its head learnt from them."""

import csv
import io
from dataclasses import replace
from pathlib import Path

from lensmith.bundle.image_hashes import hash_files
from lensmith.core.files import atomic_write
from lensmith.data.image_set import ImageSet
from lensmith.data.unlabelled import unlabelled_pictures
from lensmith.training.linear_probe.self_training import SelfTraining
from lensmith.training.run_dir.run import PSEUDO_LABELS, Run


def unlabelled_images(run: Run) -> ImageSet | None:
    """The pictures of the setting `unlabelled`, none of which is a copy of an image of the run or of another picture.

    Returns:
        A set whose samples have no meaningful label; None where the run has no such setting, or nothing is left.

    Raises:
        DataError: nothing is there, or no file can be an image.
    """
    if run.settings.unlabelled is None:
        return None
    found = unlabelled_pictures(run.settings.unlabelled)
    seen: set[int | None] = set()
    for hashes in hash_files([run.images.file(sample) for sample in run.images.samples]):
        seen.update(hashes or ())
    seen.discard(None)
    kept = []
    for path, hashes in zip(found.paths, hash_files([found.root / path for path in found.paths]), strict=True):
        if hashes is not None and seen.isdisjoint(hashes):
            kept.append(path)
            seen.update(each for each in hashes if each is not None)
    return replace(found.images(run.images.labels, kept), root=found.root.resolve()) if kept else None


def write_pseudo_labels(run: Run, images: ImageSet, found: SelfTraining) -> None:
    """Write the pictures that the head learnt from, with the labels that it gave them, into the run folder."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "confidence"))
    for row, label, confidence in zip(found.rows, found.labels, found.confidences, strict=True):
        writer.writerow((images.file(images.samples[row]), images.labels[label], f"{confidence:.4f}"))
    atomic_write(run.path / PSEUDO_LABELS, table.getvalue())


def pseudo_labelled_files(run: Run) -> list[Path]:
    """Files of the unlabelled pictures that the run's head learnt from; empty where it learnt from none."""
    file = run.path / PSEUDO_LABELS
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as rows:
        return [Path(row["path"]) for row in csv.DictReader(rows)]
