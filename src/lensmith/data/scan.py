"""Which images there are and what they are labelled: four layouts, one answer.

    DIR/train|val|test/CLASS/**     parts of its own
    DIR/CLASS/**                    no parts yet; `split` assigns them
    DIR/splits.csv                  what `lensmith data split` wrote; wins over the folders
    FILE.csv                        columns path,label[,split]; paths relative to the CSV

Labels are the class folders' names (or the CSV's), sorted by code point; deeper folders only group. Hidden files and
files whose ending is not an image's are set aside and named.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from lensmith.errors import DataError
from lensmith.image import SUFFIXES

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
MANIFEST = "splits.csv"
_PART_OF_FOLDER: dict[str, Part] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One labelled image file.

    Attributes:
        path: relative to the set's root.
        label: index into the set's labels.
        part: train, val or test; None while unsplit.
    """

    path: str
    label: int
    part: Part | None = None


@dataclass(frozen=True)
class ImageSet:
    """Labelled images under one root.

    Attributes:
        root: folder that sample paths are relative to.
        labels: class names, sorted; a sample's label is an index into them.
        samples: sorted by path.
        set_aside: files that are no images, with the reason.
        notes: what the reader should know of how the set was read or split.
    """

    root: Path
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    set_aside: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

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
        """Where the image is."""
        return self.root / sample.path

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every path, size, label and part: changes when the data does."""
        digest = hashlib.sha256("\n".join(self.labels).encode())
        for sample in self.samples:
            size = self.file(sample).stat().st_size if self.file(sample).exists() else -1
            digest.update(f"\n{sample.path}\t{size}\t{sample.label}\t{sample.part}".encode())
        return digest.hexdigest()


def scan(path: str | os.PathLike[str]) -> ImageSet:
    """Read an image folder or a CSV of path,label.

    Raises:
        DataError: missing, empty, of no known layout, or with a single class.
    """
    source = Path(path)
    if not source.exists():
        raise DataError(
            f"A folder of labelled images, or a CSV, was expected at {source}.",
            "Nothing is there.",
            "Check the path; `lensmith data fetch fashion-mnist DIR` makes one to try.",
        )
    if source.is_file():
        return _checked(_read_csv(source), source)
    if (source / MANIFEST).is_file():
        return _checked(_read_csv(source / MANIFEST), source)
    return _checked(_read_folders(source), source)


def _read_folders(root: Path) -> ImageSet:
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    parts = {name: _PART_OF_FOLDER[name.lower()] for name in folders if name.lower() in _PART_OF_FOLDER}
    rows: list[tuple[str, str, Part | None]] = []
    aside: list[tuple[str, str]] = [(entry.name, "in no class folder") for entry in root.iterdir() if entry.is_file()]
    # A class may be called "test": the folders are parts only if "train" is among them.
    if "train" in parts.values():
        for name in folders:
            if name not in parts:
                aside.append((name, "beside train, val and test"))
                continue
            rows += _read_classes(root, root / name, parts[name], aside)
    else:
        rows = _read_classes(root, root, None, aside)
    return _build(root, rows, aside)


def _read_classes(
    root: Path, base: Path, part: Part | None, aside: list[tuple[str, str]]
) -> list[tuple[str, str, Part | None]]:
    rows: list[tuple[str, str, Part | None]] = []
    for file in _walk(base):
        relative = file.relative_to(base)
        name = file.relative_to(root).as_posix()
        if len(relative.parts) < 2:
            if base != root:
                aside.append((name, "in no class folder"))
        elif file.suffix.lower() not in SUFFIXES:
            aside.append((name, f"not an image ({file.suffix or 'no ending'})"))
        else:
            rows.append((name, relative.parts[0], part))
    return rows


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _read_csv(file: Path) -> ImageSet:
    rows: list[tuple[str, str, Part | None]] = []
    aside: list[tuple[str, str]] = []
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise DataError(
                f"A CSV with the columns path,label (and perhaps split) was expected in {file}.",
                f"Its first line has {', '.join(reader.fieldnames or ()) or 'nothing'}.",
                "Name the columns in the first line.",
            )
        for number, row in enumerate(reader, start=2):
            path, label, part = (row.get(column) or "" for column in ("path", "label", "split"))
            if not path or not label:
                aside.append((f"line {number}", "path or label is empty"))
            elif not (file.parent / path).is_file():
                aside.append((path, f"named in line {number}, but there is no such file"))
            elif part and part.lower() not in _PART_OF_FOLDER:
                aside.append((path, f"its split {part!r} is none of train, val, test"))
            else:
                rows.append((path, label, _PART_OF_FOLDER.get(part.lower())))
    return _build(file.parent, rows, aside)


def _build(root: Path, rows: list[tuple[str, str, Part | None]], aside: list[tuple[str, str]]) -> ImageSet:
    labels = tuple(sorted({label for _, label, _ in rows}))
    index = {label: number for number, label in enumerate(labels)}
    samples = tuple(Sample(path, index[label], part) for path, label, part in sorted(rows))
    return ImageSet(root, labels, samples, tuple(sorted(aside)))


def _checked(found: ImageSet, source: Path) -> ImageSet:
    if not found.samples:
        raise DataError(
            f"Images in class folders (DIR/CLASS/*.jpg) were expected in {source}.",
            f"It holds none{f' ({len(found.set_aside)} other files)' if found.set_aside else ''}.",
            f"Put each class into a folder of its own; read as images are {', '.join(sorted(SUFFIXES))}.",
        )
    if len(found.labels) < 2:
        raise DataError(
            f"At least two classes were expected in {source}.",
            f"There is one, {found.labels[0]!r}.",
            "Give the folder that holds the class folders, or add a second class.",
        )
    return found
