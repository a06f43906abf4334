"""An image set: labelled images under one root, with their parts and groups, and what was left out."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lensmith.core.files import stat_stamp
from lensmith.data.consensus import Contested
from lensmith.data.part_names import Part
from lensmith.imaging.crops import picture_of

PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One labelled image file.

    Attributes:
        path: path of the file, relative to the set's root; `photo.jpg#xywh=X,Y,W,H` is a crop (see `imaging.crops`).
        label: class index into the set's labels.
        part: train, val or test; None while unsplit.
        group: name of the group of images that must not part; empty: the image is a group of its own.
        fold: number of the cross-validation fold, from 0 on; None: the image is in none.
    """

    path: str
    label: int
    part: Part | None = None
    group: str = ""
    fold: int | None = None


@dataclass(frozen=True)
class ImageSet:
    """Labelled images under one root.

    Attributes:
        root: folder that sample paths are relative to.
        labels: class names, sorted; a sample's label is an index into them.
        samples: all images, sorted by path; either all have a part or none has.
        set_aside: path and reason of each file that cannot be used.
        notes: sentences for people about how the set was read or split.
        warnings: sentences about what is doubtful, or left out though it looks like images of the set.
        junk: name and number of files of systems and programs that are left out, as `@eaDir`.
        unlabelled: path of each image that an annotation source names without a label.
        excluded: paths of images that a list of corrections leaves out; see `data.corrections`.
        relabelled: path, label before and label after of each image that corrections give another label.
        contested: images that are left out since their labels contradict each other, sorted by path.
    """

    root: Path
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    set_aside: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    junk: tuple[tuple[str, int], ...] = ()
    unlabelled: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    relabelled: tuple[tuple[str, str, str], ...] = ()
    contested: tuple[Contested, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes and warnings, for verbs that show both as one."""
        return (*self.notes, *self.warnings)

    def part(self, name: Part) -> tuple[Sample, ...]:
        """The samples of one part."""
        return tuple(sample for sample in self.samples if sample.part == name)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Parts that hold at least one image, in the order train, val, test."""
        present = {sample.part for sample in self.samples}
        return tuple(part for part in PARTS if part in present)

    def counts(self) -> dict[str, dict[str, int]]:
        """Class → part (or `all` while unsplit) → number of images."""
        table: dict[str, Counter[str]] = {label: Counter() for label in self.labels}
        for sample in self.samples:
            table[self.labels[sample.label]][sample.part or "all"] += 1
        return {label: dict(row) for label, row in table.items()}

    def file(self, sample: Sample) -> Path:
        """Path of a sample's image file, or crop."""
        return self.root / sample.path

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Size of each sample's file in bytes; -1 where the file is missing."""
        sizes = []
        for sample in self.samples:
            try:
                sizes.append(picture_of(self.file(sample)).stat().st_size)
            except OSError:
                sizes.append(-1)
        return tuple(sizes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every path, size, label and part; contents of files are not read."""
        digest = hashlib.sha256("\n".join(self.labels).encode())
        for sample, size in zip(self.samples, self.sizes, strict=True):
            digest.update(f"\n{sample.path}\t{size}\t{sample.label}\t{sample.part}".encode())
        return digest.hexdigest()


def identity(images: ImageSet, samples: Sequence[Sample]) -> str:
    """SHA-256 over path, size, times and inode of each sample's file: a cache key that needs no file to be read."""
    digest = hashlib.sha256()
    for sample in samples:
        file = images.file(sample)
        digest.update(f"{file.absolute()}\t{stat_stamp(picture_of(file)) or 'gone'}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
