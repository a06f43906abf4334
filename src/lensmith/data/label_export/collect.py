"""Pictures with their labels, from all that holds some: manifests, annotation formats and image folders.

A picture without a label is one of the set here, since people are to label it.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lensmith.config.values import Layout
from lensmith.core.junk import describe_junk
from lensmith.core.labels import canonical_label, require_distinct
from lensmith.data.annotation import Annotation
from lensmith.data.annotations.load import load
from lensmith.data.files import SetAside, Unused, image_files, require_exists, root_of_table, unusable_reason
from lensmith.data.import_annotations import unlabelled_list
from lensmith.data.label_export.marked_picture import Mark, MarkedPicture, MarkedPictures
from lensmith.data.layout import arrange
from lensmith.data.scan import MANIFEST
from lensmith.data.table import read_table
from lensmith.data.table_cells import read_cells
from lensmith.errors import DataError
from lensmith.imaging.crops import box_of, picture_of

_NO_LABEL = "path or label is empty"


def collect(path: str | os.PathLike[str], layout: Layout = "auto") -> MarkedPictures:
    """Read pictures with all labels that people gave them, contested ones included.

    Args:
        path: a manifest, a list of pictures without labels, an annotation file, or a folder: with a manifest, with
            annotations, of classes or without any label. A folder counts as one without labels where less than half of
            its images lie in folders of classes, or all in one.
        layout: how folders are read where their names can be parts and classes.

    Raises:
        DataError: nothing is there, or nothing that can be read, or no picture.
    """
    source = Path(path)
    require_exists(source, "A manifest, annotations, or a folder of images")
    if source.is_dir() and (source / MANIFEST).is_file():
        done = _of_table(source / MANIFEST)
    elif (found := load(source)) is not None:
        root, read = found[0].root, found[1]
        done = _build(root, read.rows, read.unlabelled, read.aside)
        done.notes += [*read.notes, *read.warnings]
    elif source.is_file():
        done = _of_table(source)
    else:
        done = _of_folder(source, layout)
    if not done.pictures:
        reasons = {reason for _, reason in done.aside}
        raise DataError(
            f"Images were expected in {source}.",
            f"There is none that can be used{f' ({min(reasons)})' if reasons else ''}.",
            "Name the manifest, or the folder that holds the images.",
        )
    return done


def _of_table(file: Path) -> MarkedPictures:
    root = root_of_table(file)
    if (paths := _paths_alone(file)) is not None:
        reasons = {path: unusable_reason(root / path, any_suffix=True) for path in paths}
        usable = [path for path, reason in reasons.items() if reason is None]
        return _build(root, [], usable, [(path, reason) for path, reason in reasons.items() if reason is not None])
    table = read_table(file, root)
    aside: SetAside = []
    unlabelled = []
    if (beside := unlabelled_list(file)).is_file():
        unlabelled = [
            path for path in _paths_alone(beside) or () if unusable_reason(root / path, any_suffix=True) is None
        ]
        table.notes.append(f"Images without a label are those of {beside}: {len(unlabelled):,}.")
    for path, reason in table.aside:
        if reason.startswith(_NO_LABEL) and unusable_reason(root / path) is None:
            unlabelled.append(path)
        else:
            aside.append((path, reason))
    done = _build(root, table.rows, unlabelled, aside)
    done.notes += table.notes
    return done


def _paths_alone(file: Path) -> list[str] | None:
    """The pictures of a table of paths without labels, as a work list; None for one with labels."""
    cells = read_cells(file, need_labels=False)
    return None if "label" in cells.columns else [path for _, row in cells.rows if (path := cells.cell(row, "path"))]


def _of_folder(root: Path, layout: Layout) -> MarkedPictures:
    unused = Unused()
    paths = [file.relative_to(root).as_posix() for file in image_files(root, root, unused)]
    found = arrange(paths, root, layout)
    rows = [Annotation(*row) for row in found.rows]
    if len({canonical_label(row.label) for row in rows}) < 2 or len(rows) * 2 < len(paths):
        rows = []
    labelled = {row.path for row in rows}
    unlabelled = [path for path in paths if path not in labelled]
    aside = [each for each in unused.aside if not each[1].startswith("not an image")]
    done = _build(root, rows, unlabelled, aside)
    done.notes += [*found.notes, *found.warnings] if rows else []
    if unused.junk:
        done.notes.append(describe_junk(unused.junk))
    if not rows:
        done.notes.append("The images do not lie in folders of two classes or more, so they count as unlabelled.")
    return done


def _build(
    root: Path, rows: Sequence[Annotation], unlabelled: Iterable[str], aside: Iterable[tuple[str, str]]
) -> MarkedPictures:
    """Pictures of rows: crops of one picture become its boxes."""
    unlabelled = list(unlabelled)
    root, moved = _root_above(root, [*(row.path for row in rows), *unlabelled])
    rows = [row._replace(path=moved(row.path)) for row in rows]
    unlabelled = [moved(path) for path in unlabelled]
    classes = {canonical_label(row.label) for row in rows} - {""}
    require_distinct(sorted(classes), root)
    marks: dict[str, dict[Mark, None]] = defaultdict(dict)
    about: dict[str, MarkedPicture] = {}
    for row in rows:
        picture = picture_of(Path(row.path)).as_posix()
        group = "" if row.group in (picture, row.path) else row.group  # the group of a crop is its picture
        about.setdefault(picture, MarkedPicture(picture, row.part, group))
        if label := canonical_label(row.label):
            marks[picture][Mark(label, box_of(Path(row.path)), row.annotator.strip())] = None
    for path in unlabelled:
        about.setdefault(path, MarkedPicture(path))
    pictures = [
        MarkedPicture(path, each.part, each.group, tuple(marks.get(path, ()))) for path, each in sorted(about.items())
    ]
    return MarkedPictures(root, pictures, tuple(sorted(classes)), [], list(aside))


def _root_above(root: Path, paths: Sequence[str]) -> tuple[Path, Callable[[str], str]]:
    """A folder that holds all pictures, and a function that makes paths relative to it.

    It is the given one, unless paths of a list lead out of that: tools name pictures below a folder.
    """
    if not any(path.startswith("../") or Path(path).is_absolute() for path in paths):
        return root, lambda path: path
    start = root.absolute().as_posix()
    absolute = {path: os.path.normpath(f"{start}/{path}" if not Path(path).is_absolute() else path) for path in paths}
    shared = os.path.commonpath([path.rpartition("/")[0] or "/" for path in absolute.values()])
    return Path(shared), lambda path: Path(absolute[path]).relative_to(shared).as_posix()
