"""Image folder layouts: labelled images read from class folders, from train/val/test folders, or from a CSV manifest.

    DIR/train|val|test/CLASS/**     a split into parts by folders
    DIR/CLASS/**                    no split; `lensmith.data.split` makes one
    DIR/splits.csv                  manifest that `lensmith data split` writes; it takes precedence over the folders
    FILE.csv                        columns path,label[,split]; paths relative to the CSV, or absolute
    RUN/splits.csv                  images and parts of a training run; paths relative to its images

Labels are the names of the class folders (or those in the CSV), sorted by code point; deeper folders only group.
Hidden files and folders (a leading dot) are ignored; every other unusable file is set aside with the reason.
"""

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from lensmith.core.files import stat_stamp
from lensmith.data.files import SetAside, image_files, relative, root_of_table, unusable_reason, visible_entries
from lensmith.errors import DataError
from lensmith.imaging.formats import SUFFIXES

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
MANIFEST = "splits.csv"
_PART_OF_NAME: dict[str, Part] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip

_Row = tuple[str, str, Part | None]
"""Path relative to the root, label, part of the split."""


@dataclass(frozen=True)
class Sample:
    """One labelled image file.

    Attributes:
        path: path of the file, relative to the set's root.
        label: class index into the set's labels.
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
        samples: all images, sorted by path; either all have a part or none has.
        set_aside: path and reason of each file that cannot be used.
        notes: sentences for people about how the set was read or split.
    """

    root: Path
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    set_aside: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

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
        """Path of a sample's image file."""
        return self.root / sample.path

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Size of each sample's file in bytes; -1 where the file is missing."""
        sizes = []
        for sample in self.samples:
            try:
                sizes.append(self.file(sample).stat().st_size)
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
        digest.update(f"{file.absolute()}\t{stat_stamp(file) or 'gone'}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def scan(path: str | os.PathLike[str], *, manifest: bool = True) -> ImageSet:
    """Read an image folder or a CSV of path,label[,split].

    Args:
        path: path of the folder or of the CSV.
        manifest: whether the folder's splits.csv takes precedence over its folders.

    Raises:
        DataError: a path that is missing, empty, of no known layout, or with a single class.
    """
    source = Path(path)
    if not source.exists():
        raise DataError(
            f"A folder of labelled images, or a CSV, was expected at {source}.",
            "Nothing is there.",
            "Check the path; `lensmith data fetch fashion-mnist DIR` makes one to try.",
        )
    if source.is_file():
        found = _read_csv(source)
    elif manifest and (source / MANIFEST).is_file():
        found = _read_manifest(source)
    else:
        found = _read_folders(source)
    _require_classes(found, source)
    return found


def _read_folders(root: Path) -> ImageSet:
    try:
        found = visible_entries(root)
    except OSError as error:
        raise DataError(
            f"A folder of labelled images was expected at {root}.",
            f"It cannot be opened ({error.strerror}).",
            "Check its permissions.",
        ) from error
    folders = [entry for entry in found if entry.is_dir()]
    rows: list[_Row] = []
    aside: SetAside = []
    if not _are_part_folders(folders):
        _add_rows(root, root, None, rows, aside)
        return _build(root, rows, aside)
    loose = [file for file in found if file not in folders]
    aside += [(relative(file, root), unusable_reason(file) or "in no class folder") for file in loose]
    for folder in folders:
        if part := _PART_OF_NAME.get(folder.name.lower()):
            _add_rows(root, folder, part, rows, aside)
        else:
            beside = image_files(root, folder, aside)
            aside += [(relative(file, root), "in a folder beside train, val and test") for file in beside]
    return _build(root, rows, aside)


def _are_part_folders(folders: list[Path]) -> bool:
    """Whether folders are train, val, test rather than classes: a class, too, may be called `train` or `test`."""
    parts = [_PART_OF_NAME.get(folder.name.lower()) for folder in folders]
    training = [folder for folder, part in zip(folders, parts, strict=True) if part == "train"]
    within = (inner for folder in training or (folders if all(parts) else []) for inner in folder.glob("*/"))
    return any(not inner.name.startswith(".") for inner in within)


def _add_rows(root: Path, base: Path, part: Part | None, rows: list[_Row], aside: SetAside) -> None:
    """Add a row for each image below `base`, labelled by its first folder there."""
    for file in image_files(root, base, aside):
        inside = file.relative_to(base).parts
        if len(inside) > 1:
            rows.append((file.relative_to(root).as_posix(), inside[0], part))
        else:
            aside.append((relative(file, root), "in no class folder"))


def _read_manifest(root: Path) -> ImageSet:
    found = _read_csv(root / MANIFEST)
    if found.root != root:  # a run folder, whose own pictures are plots
        return found
    named = {sample.path for sample in found.samples} | {name for name, _ in found.set_aside}
    new = sum(relative(file, root) not in named for file in image_files(root, root, []))
    missing = (
        f"Images in the folder that the manifest does not list, and that are left out: {new}. "
        "`lensmith data split DIR --overwrite` writes it again."
    )
    return replace(found, notes=(f"Read from the manifest {root / MANIFEST}.", *([missing] if new else [])))


def _read_csv(file: Path) -> ImageSet:
    lines, root = _read_lines(file), root_of_table(file)
    versions = defaultdict(set)
    for _, path, label, split in lines:
        versions[path].add((label, split))
    split_used = any(split for _, _, _, split in lines)
    rows: list[_Row] = []
    aside: SetAside = []
    seen = set()
    for number, path, label, split in lines:
        if not path or not label:
            reason: str | None = "path or label is empty"
        elif len(versions[path]) > 1:
            named = sorted(" ".join(filter(None, version)) for version in versions[path])
            reason = f"named more than once, as {' and as '.join(named)}"
        elif path in seen:
            reason = "named before"
        elif split and split not in _PART_OF_NAME:
            reason = f"its split {split!r} is none of train, val, test"
        elif split_used and not split:
            reason = "it has no split, though other lines have one"
        else:
            reason = unusable_reason(root / path, any_suffix=True)
        if reason:
            aside.append((path or file.name, f"{reason} (line {number})"))
        else:
            seen.add(path)
            rows.append((path, label, _PART_OF_NAME.get(split)))
    return _build(root, rows, aside)


def _read_lines(file: Path) -> list[tuple[int, str, str, str]]:
    """Line number, normalized path (`b` for `a/../b`), label and split of each line of a CSV."""
    lines = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = [column.strip().lower() for column in reader.fieldnames or ()]
            if not {"path", "label"} <= set(columns):
                raise DataError(
                    f"A CSV with the columns path,label (and perhaps split) was expected in {file}.",
                    f"Its first line has {', '.join(columns) or 'nothing'}.",
                    "Name the columns in the first line, with commas between them.",
                )
            reader.fieldnames = columns
            for row in reader:
                path = Path(os.path.normpath(row["path"])).as_posix() if row["path"] else ""
                lines.append((reader.line_num, path, row["label"].strip(), row.get("split", "").strip().lower()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(
            f"A folder of labelled images, or a CSV of path,label, was expected at {file}.",
            f"The file cannot be read as one ({reason}).",
            "Save the table as CSV in UTF-8, or give a folder; an archive must be unpacked first.",
        ) from error
    return lines


def _build(root: Path, rows: list[_Row], aside: SetAside) -> ImageSet:
    labels = tuple(sorted({label for _, label, _ in rows}))
    index = {label: number for number, label in enumerate(labels)}
    samples = tuple(Sample(path, index[label], part) for path, label, part in sorted(rows, key=lambda row: row[0]))
    return ImageSet(root, labels, samples, tuple(sorted(aside)))


def _require_classes(found: ImageSet, source: Path) -> None:
    if not found.samples:
        raise DataError(
            f"Labelled images (DIR/CLASS/*.jpg, or a CSV of path,label) were expected in {source}.",
            _describe_unusable(found),
            f"Put each class into a folder of its own; image files end in {', '.join(sorted(SUFFIXES))}.",
        )
    if len(found.labels) < 2:
        remedy = "Give the folder that holds the class folders, or add a second class."
        if inner := _inner_folder(found):
            remedy = f"Its folders look like classes: give {inner} instead."
        raise DataError(
            f"At least two classes were expected in {source}.", f"There is one, {found.labels[0]!r}.", remedy
        )


def _describe_unusable(found: ImageSet) -> str:
    if not found.set_aside:
        return "It is empty."
    reasons = Counter(reason.partition(" (line")[0] for _, reason in found.set_aside)
    commonest = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
    return f"It holds no image that can be used, and {len(found.set_aside)} other files ({commonest})."


def _inner_folder(found: ImageSet) -> Path | None:
    """A folder further down that holds several folders of images, and so is probably the one that was meant."""
    if any(not sample.path.startswith(f"{found.labels[0]}/") for sample in found.samples):
        return None
    folders = {str(Path(sample.path).parent) for sample in found.samples}
    common = os.path.commonpath(folders)
    children = {Path(folder).relative_to(common).parts[:1] for folder in folders} - {()}
    return found.root / common if len(children) > 1 else None
