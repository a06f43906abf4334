"""Stored uploads for a labelling tool: the model's answers as pre-annotations, true labels as annotations."""

import os
from collections import defaultdict
from pathlib import Path

from lensmith.config.values import LabelFormat
from lensmith.core.files import sha256
from lensmith.core.labels import canonical_label
from lensmith.core.progress import track
from lensmith.data.label_export.export import LabelExport, export
from lensmith.data.label_export.marked_picture import Mark, MarkedPicture, MarkedPictures
from lensmith.errors import DataError
from lensmith.feedback.folder import read_uploads
from lensmith.feedback.storage import StoredUpload, Upload

_Same = list[tuple[StoredUpload, Upload]]
"""Uploads of the same picture, oldest first."""


def export_uploads(folder: str | os.PathLike[str], form: LabelFormat, out: str | os.PathLike[str]) -> LabelExport:
    """Write uploads for a labelling tool; each picture counts once, and none is copied.

    Args:
        folder: folder of stored uploads.
        form: annotation format.
        out: new folder for its files.

    Raises:
        DataError: there is no such folder, or no upload in it.
        OutputError: the output folder is there already.
    """
    root = Path(folder)
    given = MarkedPictures(root)
    same: dict[str, _Same] = defaultdict(list)
    found = read_uploads(root)
    for stored, upload in track(found, "reading", len(found)):
        try:
            same[sha256(stored.image)].append((stored, upload))
        except OSError:  # the service has just removed it, or the disk is damaged
            given.aside.append((str(stored.image), "it cannot be read"))
    if not same:
        raise DataError(
            f"Stored uploads were expected in {root}.",
            "There is none.",
            "Name the folder of `lensmith serve --keep`, once it has stored some.",
        )
    for uploads in same.values():
        _add(uploads, given)
    given.pictures.sort(key=lambda picture: picture.path)
    marks = [mark for picture in given.pictures for mark in (*picture.marks, *picture.predictions)]
    given.classes = tuple(sorted({mark.label for mark in marks}))
    given.notes.append(
        "The files name pictures in the folder of uploads, where the service deletes them in time (keep_days, "
        "keep_bytes), and which only its own user may read."
    )
    return export(given, form, Path(out))


def _add(uploads: _Same, given: MarkedPictures) -> None:
    """Add a picture that was sent once or several times, with its latest answer and its true label."""
    stored, upload = uploads[-1]
    path = stored.image.relative_to(given.root).as_posix()
    labels = sorted({canonical_label(each.truth) for _, each in uploads if each.truth is not None} - {""})
    if len(labels) > 1:
        given.aside.append((path, f"the same picture has several labels: {', '.join(labels)}"))
        return
    answer = Mark(upload.label, score=upload.confidence, model=f"{upload.model} {upload.version}")
    given.pictures.append(MarkedPicture(path, marks=tuple(Mark(label) for label in labels), predictions=(answer,)))
