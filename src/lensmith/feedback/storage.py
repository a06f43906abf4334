"""Uploads stored for labelling: their layout in a folder that several processes may share.

    FOLDER/2026-11-26/STEM.jpg, .png … the upload, unchanged, metadata included
                      STEM.json       the answer, the reason for storing it, and its true label after feedback

STEM is the SHA-256 of the request's identifier, cut to 32 digits, and the image's index in its request: identifiers
come from clients, and none of them may become a path. Folders (0700) and files (0600) are private to their owner. Files
are written atomically; an upload exists once its JSON file does.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lensmith.core.files import atomic_write
from lensmith.core.locks import locked
from lensmith.imaging.formats import FORMATS, identify

Reason = Literal["unsure", "odd", "random"]

SUFFIXES = tuple(each.suffixes[0] for each in FORMATS.values())
"""Suffixes of stored images; each has that of its content."""
ABANDONED_S = 3600.0
"""Age in seconds at which an incomplete upload is abandoned."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_SIDECAR = re.compile(r"[0-9a-f]{32}-\d{1,9}\.json")


class Upload(BaseModel):
    """One upload's JSON file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    request_id: str
    image: int = Field(0, ge=0, description="index in its request, from 0 on")
    at: datetime = Field(description="time of the answer")
    model: str = Field(description="name of the model that answered")
    version: str
    label: str = Field(description="label that was answered")
    confidence: float = Field(description="0..1")
    abstained: bool = False
    top: tuple[tuple[str, float], ...] = Field((), description="the likeliest classes with their probabilities")
    reason: Reason = Field(description="reason for storing it")
    tag: str = Field("", description="rollout and role of the model, as flowers-7/challenger")
    known: bool = Field(False, description="whether a model of that rollout learnt from the image or was chosen on it")
    truth: str | None = Field(None, description="true label; None before feedback")
    told_at: datetime | None = Field(None, description="time of the feedback")


@dataclass(frozen=True)
class StoredUpload:
    """One upload on disk.

    Attributes:
        sidecar: path of the JSON file.
        image: path of the picture.
        bytes: size of both files.
        written: modification time of the picture, in seconds since 1970.
    """

    sidecar: Path
    image: Path
    bytes: int
    written: float

    @property
    def age_s(self) -> float:
        """Seconds since it was written."""
        return time.time() - self.written

    def read(self) -> Upload | None:
        """Its JSON file's content; None where it has just been removed, or is damaged."""
        return read(self.sidecar)

    def remove(self) -> None:
        """Remove the JSON file first, so that an incomplete upload is never found."""
        self.sidecar.unlink(missing_ok=True)
        self.image.unlink(missing_ok=True)


def stem_of(request_id: str, image: int) -> str:
    """The stem of an upload's file names."""
    return f"{hashed(request_id)}-{image}"


def store(folder: Path, upload: Upload, encoded: bytes) -> int:
    """Write an upload, whole or not at all.

    An upload of the same request and index is replaced, unless it has a true label: identifiers should be unique.

    Returns:
        Bytes written.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    day = folder / f"{upload.at.astimezone(UTC):%Y-%m-%d}"
    stem = stem_of(upload.request_id, upload.image)
    sidecar = day / f"{stem}.json"
    before = read(sidecar)
    if before is not None:
        if before.truth is not None:
            return 0
        for suffix in (".json", *SUFFIXES):  # in this order, so that an incomplete upload is never found
            sidecar.with_suffix(suffix).unlink(missing_ok=True)
    form = identify(encoded)
    image = day / (stem + (form.suffixes[0] if form else SUFFIXES[0]))
    content = upload.model_dump_json().encode()
    _write(image, encoded)
    try:
        _write(sidecar, content)
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    return len(encoded) + len(content)


def find(folder: Path, request_id: str, image: int) -> Path | None:
    """The JSON file of the latest upload of a request and index; None where there is none."""
    name = f"{stem_of(request_id, image)}.json"
    return next((day / name for day in reversed(_days(folder)) if (day / name).is_file()), None)


def read(sidecar: Path) -> Upload | None:
    """The content of an upload's JSON file; None where it is missing or damaged."""
    try:
        return Upload.model_validate_json(sidecar.read_bytes())
    except (OSError, ValidationError):
        return None


def write_truth(sidecar: Path, truth: str) -> bool:
    """Write the true label of an upload; False where it has one already, or is gone.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    with locked(sidecar.parent.parent / ".lock", mode=0o600):
        upload = read(sidecar)
        if upload is None or upload.truth is not None:
            return False
        labelled = upload.model_copy(update={"truth": truth, "told_at": datetime.now(UTC).replace(microsecond=0)})
        _write(sidecar, labelled.model_dump_json().encode())
        return True


def stored_uploads(folder: Path) -> list[StoredUpload]:
    """All uploads of a folder, oldest first; no file is opened."""
    found = []
    for day in _days(folder):
        files = dict(_files(day))
        for name in filter(_SIDECAR.fullmatch, files):
            stem = name.removesuffix(".json")
            image = next((stem + suffix for suffix in SUFFIXES if stem + suffix in files), None)
            if image is not None:
                size = files[name].st_size + files[image].st_size
                found.append(StoredUpload(day / name, day / image, size, files[image].st_mtime))
    return sorted(found, key=lambda upload: (upload.written, upload.sidecar))


def trim(folder: Path, most_bytes: int, most_uploads: int, before: float) -> tuple[int, int]:
    """Remove the oldest uploads until the others fit, uploads that are too old, and abandoned incomplete ones.

    Args:
        folder: folder of stored uploads.
        most_bytes: largest size of all that stay.
        most_uploads: largest number of uploads that stay.
        before: time before which uploads are too old, in seconds since 1970.

    Returns:
        Bytes and number of the uploads that stay.
    """
    uploads = stored_uploads(folder)
    size = sum(upload.bytes for upload in uploads)
    while uploads and (size > most_bytes or len(uploads) > most_uploads or uploads[0].written < before):
        with suppress(OSError):
            uploads[0].remove()
        size -= uploads.pop(0).bytes
    remove_incomplete(folder, uploads, ABANDONED_S)
    return size, len(uploads)


def remove_incomplete(
    folder: Path, complete: Sequence[StoredUpload], age_s: float, request_id: str | None = None
) -> None:
    """Remove files that a killed process left of uploads, and empty days.

    Args:
        folder: folder of stored uploads.
        complete: uploads whose files stay.
        age_s: least age in seconds of files that are removed.
        request_id: request whose files are removed; None for all requests.
    """
    stays = {path for upload in complete for path in (upload.sidecar, upload.image)}
    prefix = "" if request_id is None else f"{hashed(request_id)}-"
    for day in _days(folder):
        for name, stat in _files(day):
            is_wanted = name.removeprefix(".").startswith(prefix) and day / name not in stays
            if is_wanted and time.time() - stat.st_mtime >= age_s:
                with suppress(OSError):
                    (day / name).unlink()
        with suppress(OSError):  # it is not empty
            day.rmdir()


def hashed(request_id: str) -> str:
    """The first part of a stem: a hash of the request's identifier."""
    return hashlib.sha256(request_id.encode(errors="replace")).hexdigest()[:32]


def _days(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if _DAY.fullmatch(each.name) and each.is_dir())
    except OSError:
        return []


def _files(day: Path) -> Iterator[tuple[str, os.stat_result]]:
    with suppress(OSError), os.scandir(day) as found:
        for each in found:
            with suppress(OSError):  # just removed
                if each.is_file(follow_symlinks=False):
                    yield each.name, each.stat(follow_symlinks=False)


def _write(path: Path, content: bytes) -> None:
    """Write a private file atomically, and its day's folder where it is missing."""
    for is_last in (False, True):
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)  # in one call only the last folder would get the mode
        try:
            atomic_write(path, content, mode=0o600, sync=False)
            return
        except FileNotFoundError:  # another process has just removed the empty folder
            if is_last:
                raise
