"""Stored uploads of a folder: read, summarised and deleted."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lensmith.config.values import parse_duration
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.errors import DataError, SettingsError
from lensmith.feedback.storage import StoredUpload, Upload, hashed, remove_incomplete, stored_uploads


@dataclass(frozen=True)
class UploadSummary(Result):
    """Figures of a folder of stored uploads.

    Attributes:
        folder: path of the folder.
        uploads: number of uploads.
        bytes: size of all uploads.
        labelled: number of uploads with a true label.
        right: number of labelled uploads that were answered correctly.
        labels: class → number of uploads answered with it (`kept`), by reason, and number of those truly in it
            (`labelled`).
        reasons: `unsure`, `odd` or `random` → number of uploads.
        oldest: time of the first answer; None without uploads.
        newest: time of the last answer; None without uploads.
    """

    folder: Path
    uploads: int
    bytes: int
    labelled: int
    right: int
    labels: dict[str, dict[str, int]]
    reasons: dict[str, int]
    oldest: datetime | None
    newest: datetime | None


@dataclass(frozen=True)
class DeletedUploads(Result):
    """Result of a deletion.

    Attributes:
        removed: number of removed uploads.
        bytes: size of the removed uploads.
        left: number of uploads that are still stored.
    """

    removed: int
    bytes: int
    left: int


def summarise(folder: str | os.PathLike[str]) -> UploadSummary:
    """Count the uploads in a folder.

    Raises:
        DataError: there is no such folder.
    """
    found = read_uploads(Path(folder))
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for _, upload in found:
        labels[upload.label].update(("kept", upload.reason))
        if upload.truth is not None:
            labels[upload.truth]["labelled"] += 1
    labelled = [upload for _, upload in found if upload.truth is not None]
    times = [upload.at for _, upload in found]
    return UploadSummary(
        folder=Path(folder),
        uploads=len(found),
        bytes=sum(stored.bytes for stored, _ in found),
        labelled=len(labelled),
        right=sum(upload.truth == upload.label for upload in labelled),
        labels={label: dict(labels[label]) for label in sorted(labels)},
        reasons=dict(sorted(Counter(upload.reason for _, upload in found).items())),
        oldest=min(times, default=None),
        newest=max(times, default=None),
    )


def delete(
    folder: str | os.PathLike[str],
    older_than: float | str | None,
    request_ids: Sequence[str],
    everything: bool,
    confirm: Callable[[int, int], None] = lambda uploads, size: None,
) -> DeletedUploads:
    """Delete stored uploads with their answers and labels: all, those of some requests, or those of an age.

    Exported copies stay.

    Args:
        folder: folder of the uploads.
        older_than: least age, as 30d, or a number of seconds.
        request_ids: requests whose uploads are deleted.
        everything: whether all are deleted.
        confirm: called with the number of uploads and their bytes before any is deleted; raises to prevent it.

    Raises:
        SettingsError: none or several ways to choose uploads, or no duration.
        DataError: there is no such folder.
    """
    if sum((older_than is not None, bool(request_ids), everything)) != 1:
        raise SettingsError(
            "One way to choose uploads was expected.",
            "None or several arrived.",
            "Use --older-than 30d, or --request-id ID, or --all.",
        )
    try:
        seconds = parse_duration(older_than)
    except ValueError:
        seconds = None
    if older_than is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
        raise SettingsError(
            "A duration was expected for older_than.",
            f"{older_than!r} arrived.",
            "Write it with its unit, as 30d, 12h or 90m.",
        )
    source = Path(folder)
    found = _stored_uploads(source)
    if request_ids:
        prefixes = tuple(f"{hashed(request_id)}-" for request_id in request_ids)
        wanted = [stored for stored in found if stored.sidecar.name.startswith(prefixes)]
    elif older_than is not None:
        wanted = [stored for stored in found if stored.age_s > seconds]
    else:
        wanted = found
    confirm(len(wanted), sum(stored.bytes for stored in wanted))
    for stored in track(wanted, "deleting", len(wanted)):
        stored.remove()
    for request_id in dict.fromkeys(request_ids) or (None,):  # also files of uploads that were never completed
        remove_incomplete(source, stored_uploads(source), seconds if older_than is not None else 0, request_id)
    return DeletedUploads(len(wanted), sum(stored.bytes for stored in wanted), len(found) - len(wanted))


def _stored_uploads(folder: Path) -> list[StoredUpload]:
    if not folder.is_dir():
        raise DataError(
            f"A folder of stored uploads was expected at {folder}.",
            "It is a file." if folder.exists() else "Nothing is there.",
            "Name the folder of `lensmith serve --keep`.",
        )
    return stored_uploads(folder)


def read_uploads(folder: Path) -> list[tuple[StoredUpload, Upload]]:
    """All uploads, oldest first, without those that the service removes meanwhile."""
    found = _stored_uploads(folder)
    return [(stored, upload) for stored in track(found, "reading", len(found)) if (upload := stored.read())]
