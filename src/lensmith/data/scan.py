"""Image folder layouts: labelled images read from class folders, from train/val/test folders, or from a CSV manifest.

    DIR/train|val|test/CLASS/**     a split into parts by folders, or DIR/CLASS/train|val|test; see `data.layout`
    DIR/CLASS/**                    no split; `lensmith.data.split` makes one
    DIR/splits.csv                  manifest that `lensmith data split` writes; it takes precedence over the folders
    FILE.csv                        columns path,label[,split]; see `data.table`
    DIR or FILE                     annotations of labelling tools, as CVAT and YOLO; see `data.annotations`
    RUN/splits.csv                  images and parts of a training run; paths relative to its images

Labels are the names of the class folders (or those in the CSV) as `core.labels` normalizes them, sorted by code point.
Hidden files, and those of systems and programs (`core.junk`), are left out and counted; every other unusable file is
set aside with the reason.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lensmith.config.values import Layout
from lensmith.core.junk import describe_junk, junk_name
from lensmith.core.labels import canonical_label, distinguished, is_missing_value, require_distinct
from lensmith.core.text import listed
from lensmith.data.annotation import Annotation
from lensmith.data.annotations.assemble import Annotations
from lensmith.data.annotations.detect import near_misses, unknown
from lensmith.data.annotations.load import load
from lensmith.data.annotations.reader import Source
from lensmith.data.consensus import resolve
from lensmith.data.files import Unused, image_files, is_folder, printable, relative, require_exists, root_of_table
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.layout import arrange
from lensmith.data.matched_boxes import match_boxes
from lensmith.data.table import read_table
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of
from lensmith.imaging.formats import SUFFIXES

MANIFEST = "splits.csv"
ANNOTATION_SUFFIXES = (".json", ".xml", ".yaml", ".yml", ".names")
"""Endings of annotation files that are no tables."""


def scan(
    path: str | os.PathLike[str], *, manifest: bool = True, layout: Layout = "auto", any_classes: bool = False
) -> ImageSet:
    """Read an image folder, a CSV of path,label[,split], or annotations of a labelling tool with their pictures.

    Args:
        path: path of the folder, of the CSV, or of an annotation file.
        manifest: whether the folder's splits.csv takes precedence over its annotations and folders.
        layout: how folders are read where their names can be parts and classes; a manifest, a CSV and annotations say
            it themselves. Other than `auto`, it has annotations in the folder ignored.
        any_classes: whether a single class, or images without a label, are enough, as for a review.

    Raises:
        DataError: a path that is missing, empty, of no known layout, of one that can be read in two ways, with a
            single class, or with classes whose names look alike; annotations as in `data.annotations.load`.
    """
    source = Path(path)
    require_exists(
        source,
        "A folder of labelled images, or a CSV,",
        "Check the path; `lensmith data fetch fashion-mnist DIR` makes one to try.",
    )
    loaded = None
    if manifest and source.is_dir() and (source / MANIFEST).is_file():
        found = _read_manifest(source)
    elif source.name != MANIFEST and layout == "auto" and (loaded := load(source)) is not None:
        found = image_set_of(*loaded)
    elif source.is_file() and source.suffix.lower() in ANNOTATION_SUFFIXES:
        raise unknown(Source(source))
    elif source.is_file():
        found = _read_csv(source)
    else:
        found = _read_folders(source, layout)
    if not (any_classes and (found.samples or found.unlabelled or found.contested)):
        _require_classes(found, source, is_annotated=loaded is not None)
    return found


def image_set_of(source: Source, annotations: Annotations) -> ImageSet:
    """The image set of annotations that have been read.

    Raises:
        DataError: labels that look alike.
    """
    matched = match_boxes(annotations.rows)
    agreed = resolve(matched.rows)
    aside = [*annotations.aside, *((each.path, each.reason) for each in agreed.contested)]
    images = _build(source.root, source.path, agreed.annotations, aside, "labels")
    unlabelled = annotations.unlabelled
    note = f"Images without a label, which are left out: {len(unlabelled):,} ({listed(unlabelled, 3)})."
    return replace(
        images,
        notes=(
            *annotations.notes,
            *matched.notes,
            *agreed.notes,
            *([note] if unlabelled else []),
            *images.notes,
            *_junk_notes(annotations.junk),
        ),
        warnings=(*annotations.warnings, *agreed.warnings, *images.warnings),
        junk=tuple(sorted(annotations.junk.items())),
        unlabelled=unlabelled,
        contested=agreed.contested,
    )


def _read_folders(root: Path, layout: Layout) -> ImageSet:
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise DataError(
            f"A folder of labelled images was expected at {root}.",
            f"It cannot be opened ({error.strerror}).",
            "Check its permissions.",
        ) from error
    unused = Unused()
    paths = [file.relative_to(root).as_posix() for file in image_files(root, root, unused)]
    found = arrange(paths, root, layout)
    rows = [Annotation(*row) for row in found.rows]
    images = _build(root, root, rows, [*unused.aside, *found.aside], "folders")
    notes = (*images.notes, *found.notes, *_junk_notes(unused.junk))
    used = {path for path, _, _ in found.rows} | {path for path, _ in found.aside}
    empty = _empty_folder_warnings(root, used, bool(images.parts))
    warnings = (*found.warnings, *images.warnings, *empty, *unused.warnings())
    return replace(images, notes=notes, warnings=warnings, junk=tuple(sorted(unused.junk.items())))


def _empty_folder_warnings(root: Path, used: set[str], has_parts: bool) -> list[str]:
    """A warning that names folders where classes are expected, in which no image file was found."""
    holding = {"/".join(path.split("/")[:depth]) for path in used for depth in (1, 2)}
    classes_in = {path.split("/")[0] for path in used if path.count("/") > 1} if has_parts else set()
    empty = []
    for folder in (root, *(root / name for name in sorted(classes_in))):
        for entry in sorted(folder.iterdir()):
            name = relative(entry, root)
            if is_folder(entry) and name not in holding and junk_name(entry, is_folder=True) is None:
                empty += [name] if printable(entry.name) == entry.name else []
    return [f"Folders without an image file, which are no classes: {listed(empty)}."] if empty else []


def _junk_notes(junk: Counter[str]) -> list[str]:
    return [describe_junk(junk)] if junk else []


def _read_manifest(root: Path) -> ImageSet:
    found = _read_csv(root / MANIFEST)
    if found.root != root:  # a run folder, whose own pictures are plots
        return found
    named = {picture_of(Path(sample.path)).as_posix() for sample in found.samples}
    named |= {picture_of(Path(name)).as_posix() for name, _ in found.set_aside}
    unused = Unused()
    new = sum(relative(file, root) not in named for file in image_files(root, root, unused))
    missing = (
        f"Images in the folder that the manifest does not list, and that are left out: {new}. "
        "`lensmith data split DIR --overwrite` writes it again."
    )
    notes = (
        f"Read from the manifest {root / MANIFEST}.",
        *([missing] if new else []),
        *found.notes,
        *_junk_notes(unused.junk),
    )
    return replace(found, notes=notes, junk=tuple(sorted(unused.junk.items())))


def _read_csv(file: Path) -> ImageSet:
    root = root_of_table(file)
    table = read_table(file, root)
    matched = match_boxes(table.rows)
    table.rows = matched.rows
    agreed = resolve(table.rows)
    images = _build(root, file, agreed.annotations, [*table.aside, *table.unresolved(agreed.contested)], "labels")
    if table.folds:
        folded = (replace(sample, fold=table.folds.get(sample.path)) for sample in images.samples)
        images = replace(images, samples=tuple(folded))
    notes = (*table.notes, *matched.notes, *agreed.notes, *images.notes)
    warnings = (*agreed.warnings, *table.warnings, *images.warnings)
    return replace(images, notes=notes, warnings=warnings, contested=agreed.contested)


def _build(
    root: Path, source: Path, rows: Sequence[Annotation], aside: Sequence[tuple[str, str]], what: str
) -> ImageSet:
    """The image set of rows with labels as they were typed.

    Raises:
        DataError: labels that look alike.
    """
    typed: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        typed[canonical_label(row.label)].add(row.label)
    blank = [(row.path, "the name of its class shows no character") for row in rows if not canonical_label(row.label)]
    labels = tuple(sorted(typed.keys() - {""}))
    require_distinct(labels, source)
    index = {label: number for number, label in enumerate(labels)}
    by_typed = {label: canonical_label(label) for labels_typed in typed.values() for label in labels_typed}
    samples = tuple(
        Sample(row.path, index[by_typed[row.label]], row.part, row.group)
        for row in sorted(rows, key=lambda row: row.path) if by_typed[row.label]
    )  # fmt: skip
    merged = [
        f"These {what} are one class, {label!r}: {distinguished(names)}."
        for label, names in sorted(typed.items()) if len(names) > 1
    ]  # fmt: skip
    if missing := [label for label in labels if is_missing_value(label)]:
        merged.append(
            f"Classes that are called as programs write a missing value: {listed(missing)}. If their images have no "
            "label, leave them out."
        )
    changed = sorted(next(iter(names)) for label, names in typed.items() if len(names) == 1 and label not in names)
    note = f"Class names are used without invisible characters, and in one Unicode form: {listed(map(ascii, changed))}."
    return ImageSet(root, labels, samples, tuple(sorted([*aside, *blank])), (note,) if changed else (), tuple(merged))


def _require_classes(found: ImageSet, source: Path, is_annotated: bool) -> None:
    close = near_misses(Source(source)) if source.is_dir() and not is_annotated and len(found.labels) < 2 else []
    left_out = " ".join(filter(None, (_describe_left_out(found), *close)))
    if not found.samples:
        raise DataError(
            f"Labelled images (DIR/CLASS/*.jpg, a CSV of path,label, or annotations) were expected in {source}.",
            f"There is no image that can be used. {left_out}" if left_out else "It is empty.",
            _remedy_without_images(source, is_annotated),
        )
    if len(found.labels) < 2:
        remedy = "Give the folder that holds the class folders, or add a second class."
        if is_annotated:
            remedy = "Add images of a second class."
        elif inner := _inner_folder(found):
            remedy = f"Its folders look like classes: give {inner} instead."
        raise DataError(
            f"At least two classes were expected in {source}.",
            f"There is one, {found.labels[0]!r}. {left_out}".strip(),
            remedy,
        )


def _remedy_without_images(source: Path, is_annotated: bool) -> str:
    """What makes a source usable of which no image can be used."""
    if is_annotated:
        return "Label the images of one class at least, and export the annotations again."
    endings = f"image files end in {', '.join(sorted(SUFFIXES))}."
    if source.is_file():
        return f"Paths are absolute, or relative to the table's folder, {source.absolute().parent}; {endings}"
    return f"Put each class into a folder of its own; {endings}"


def _describe_left_out(found: ImageSet) -> str:
    """Sentences on what is not used, with the commonest reasons and a file of each, or was merged; may be empty."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for path, reason in found.set_aside:
        plain = reason.partition(" (line")[0]
        counts[plain] += 1
        example.setdefault(plain, path)
    commonest = listed((f"{count:,} {reason}: {example[reason]}" for reason, count in counts.most_common(3)), 3, "; ")
    sentences = [f"Files that cannot be used: {len(found.set_aside):,} ({commonest})."] if counts else []
    if found.unlabelled:
        sentences.append(f"Images without a label: {len(found.unlabelled):,} ({listed(found.unlabelled, 3)}).")
    return " ".join([*(sentences or found.warnings), *_junk_notes(Counter(dict(found.junk)))])


def _inner_folder(found: ImageSet) -> Path | None:
    """A folder further down that holds several folders of images, and so is probably the one that was meant."""
    if len({sample.path.partition("/")[0] for sample in found.samples}) > 1:
        return None
    folders = {str(Path(sample.path).parent) for sample in found.samples}
    common = os.path.commonpath(folders)
    children = {Path(folder).relative_to(common).parts[:1] for folder in folders} - {()}
    return found.root / common if len(children) > 1 else None
