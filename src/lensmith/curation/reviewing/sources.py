"""Sources of pictures to review: image folders, manifests, evaluations, uploads stored by a service, bare pictures.

DIR, FILE.csv (path,label)            a labelled set, read as everywhere
FILE.csv with suggested|score|reason  a work list: `curation.reviewing.work_list`
evaluation.json, or its folder        the mistakes of an evaluation, the most confident first
DIR of `lensmith serve --keep`        stored uploads, with the model's answers
DIR of pictures without class folders pictures that nobody has labelled
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lensmith.core.labels import canonical_label, matched_label, require_distinct
from lensmith.core.text import listed
from lensmith.curation.reviewing.items import ReviewItem, ReviewSource
from lensmith.curation.reviewing.work_list import is_work_list, read_work_list
from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.reader import Source as AnnotationSource
from lensmith.data.files import Unused, image_files, require_exists
from lensmith.data.scan import MANIFEST, scan
from lensmith.data.unlabelled import unlabelled_pictures
from lensmith.errors import DataError
from lensmith.feedback.folder import read_uploads
from lensmith.feedback.storage import stored_uploads
from lensmith.imaging.crops import picture_of

EVALUATION = "evaluation.json"
LISTS = ("suspects.csv", "contested.csv", "next.csv")
"""Work lists that lensmith writes into folders, by which a folder without pictures is known."""


def open_source(path: Path, classes: Sequence[str] = (), ignore_labels: bool = False) -> ReviewSource:
    """Read what is to be reviewed.

    Args:
        path: path of a folder, a CSV, or an evaluation's JSON file.
        classes: the only classes that are allowed; empty: those of the source, and new ones.
        ignore_labels: whether the folder's names are no labels.

    Raises:
        DataError: nothing that can be reviewed, or labels that `classes` does not have.
    """
    found = _open(path, ignore_labels)
    if not found.items:
        raise DataError(
            f"Pictures to review were expected in {path}.",
            f"There is none. {' '.join(found.notes)}".strip(),
            "Give a folder of pictures, a manifest, or a list that lensmith has written.",
        )
    return _with_classes(found, classes) if classes else found


def _open(path: Path, ignore_labels: bool) -> ReviewSource:
    require_exists(path, "A folder, a CSV or an evaluation to review")
    if ignore_labels:
        return _unlabelled(path)
    if path.is_file():
        if _is_evaluation(path):
            return _mistakes(path)
        return read_work_list(path) if is_work_list(path) else _labelled(path)
    if (path / EVALUATION).is_file():
        return _mistakes(path / EVALUATION)
    if stored_uploads(path):
        return _uploads(path)
    if (path / MANIFEST).is_file():
        return _labelled(path)
    first = next(image_files(path, path, Unused()), None)
    if first is None:
        for name in LISTS:
            if (path / name).is_file():
                return read_work_list(path / name)
    is_labelled = _has_folders(path) or detect(AnnotationSource(path)) is not None
    return _labelled(path) if is_labelled else _unlabelled(path)


def _unlabelled(path: Path) -> ReviewSource:
    """All pictures of a folder, a table or a text file, whatever the folders are called."""
    found = unlabelled_pictures(path)
    items = tuple(ReviewItem(name) for name in found.paths)
    return ReviewSource(path, found.root, "new", "pictures without a label", items, (), found.notes)


def _has_folders(path: Path) -> bool:
    """Whether pictures lie in folders below the one given, whose names may be classes."""
    return any(file.parent != path for file in image_files(path, path, Unused()))


def _is_evaluation(file: Path) -> bool:
    """Whether a file is the JSON of an evaluation, by its name or first key."""
    if file.name == EVALUATION:
        return True
    with file.open("rb") as stream:
        return re.match(rb'\s*\{\s*"bundle"', stream.read(100)) is not None


def _labelled(path: Path) -> ReviewSource:
    """A labelled set; contested pictures come first, those that it names without a label last."""
    images = scan(path, any_classes=True)
    labelled = (
        ReviewItem(
            sample.path,
            images.labels[sample.label],
            split=sample.part or "",
            group=sample.group,
            fold="" if sample.fold is None else str(sample.fold),
        )
        for sample in images.samples
    )
    contested = (
        ReviewItem(each.path, reason=each.reason, split=each.part or "", group=each.group) for each in images.contested
    )
    items = _once((*contested, *labelled, *(ReviewItem(name) for name in images.unlabelled)))
    aside = dict.fromkeys(path for path, _ in images.set_aside if path not in {each.path for each in images.contested})
    notes = (f"Files that are left out: {len(aside):,} ({listed(aside, 3)}).",) if aside else ()
    return ReviewSource(path, images.root, "set", "a labelled set", items, images.labels, (*images.warnings, *notes))


def _mistakes(file: Path) -> ReviewSource:
    """The wrong answers of an evaluation, the most confident first."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        mistakes = [
            (str(each["path"]), str(each["label"]), str(each["predicted"]), float(each["confidence"]))
            for each in content["mistakes"]
        ]
        labels, data = [str(label) for label in content["labels"]], Path(content["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The JSON file of an evaluation was expected at {file}.",
            f"It cannot be read as one ({type(error).__name__}: {error}).",
            "Give the folder that `lensmith evaluate --out` has written.",
        ) from error
    root = file.parent
    items, missing = [], []
    for written, label, predicted, confidence in mistakes:
        place = _existing(written, (Path(), root, data, data.parent))
        if place is None:
            missing.append(written)
        else:
            name = Path(os.path.relpath(place, root)).as_posix()
            items.append(ReviewItem(name, label, predicted, confidence))
    return ReviewSource(
        file, root, "list", "the mistakes of an evaluation", _once(items), _sorted(labels), _missing(missing)
    )


def _existing(written: str, folders: Iterable[Path]) -> Path | None:
    """The first place at which a picture lies; None where it lies nowhere."""
    return next((folder / written for folder in folders if picture_of(folder / written).is_file()), None)


def _uploads(folder: Path) -> ReviewSource:
    """Uploads that a service has stored, oldest first."""
    items, labels = [], set()
    for stored, upload in read_uploads(folder):
        name = stored.image.relative_to(folder).as_posix()
        labels |= {label for label, _ in upload.top} | {upload.label}
        if upload.truth is not None:
            labels.add(upload.truth)
        items.append(
            ReviewItem(name, upload.truth or "", upload.label, upload.confidence, reason=f"stored as {upload.reason}")
        )
    return ReviewSource(folder, folder, "uploads", "uploads stored by a service", _once(items), _sorted(labels))


def _once(items: Iterable[ReviewItem]) -> tuple[ReviewItem, ...]:
    return tuple({item.path: item for item in reversed(list(items))}.values())[::-1]


def _sorted(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({canonical_label(label) for label in labels} - {""}))


def _missing(paths: Sequence[str]) -> tuple[str, ...]:
    return (f"Pictures that are not there any more: {len(paths):,} ({listed(paths, 3)}).",) if paths else ()


def _with_classes(source: ReviewSource, classes: Sequence[str]) -> ReviewSource:
    """The source with the classes that the user lists, in that order.

    Raises:
        DataError: the source has labels that are none of them, or two classes look alike.
    """
    wanted = tuple(dict.fromkeys(canonical_label(name) for name in classes))
    require_distinct(wanted, "--classes")
    used = {item.label for item in source.items if item.label}
    used |= {label for item in source.items for _, label in item.named}
    unknown = sorted(label for label in used if matched_label(label, wanted) is None)
    if unknown:
        raise DataError(
            f"Labels that --classes lists were expected in {source.path}.",
            f"These are none of them: {listed(map(repr, unknown))}.",
            "Add them to --classes, or leave --classes out.",
        )
    return ReviewSource(source.path, source.root, source.kind, source.title, source.items, wanted, source.notes)
