"""Uploads that a service has kept for labelling: how they lie in their folder.

    FOLDER/2026-11-26/STEM.jpg|png    the upload as it came, metadata included
                      STEM.json       what was answered, why it was kept, and its true label once somebody has said it

STEM is the SHA-256 of the request's identifier, cut to 32 digits, and the image's place in its request: identifiers
come from clients, and none of them may become a path. Folders made here are for their owner alone (0700), files too
(0600). A file is written beside its place and renamed; an upload is there once its JSON is. Several processes may share
the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Reason = Literal["unsure", "odd", "random"]

SUFFIXES = (".jpg", ".png")
ABANDONED_S = 3600.0
"""Seconds after which a half of an upload is nobody's any more."""

_PNG = b"\x89PNG"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_STEM = re.compile(r"[0-9a-f]{32}-\d{1,9}")


class Upload(BaseModel):
    """What is known of one kept upload: its JSON file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    request_id: str
    image: int = Field(0, ge=0, description="its place in its request")
    at: datetime = Field(description="when it was answered")
    model: str = Field(description="name of the model that answered")
    version: str
    label: str = Field(description="what it answered")
    confidence: float = Field(description="0 to 1")
    abstained: bool = False
    top: tuple[tuple[str, float], ...] = Field((), description="the likeliest classes with their probabilities")
    reason: Reason = Field(description="why it was kept")
    tag: str = Field("", description="the request's part in a canary release")
    truth: str | None = Field(None, description="its true label, once somebody has said it")
    told_at: datetime | None = Field(None, description="when that was")


@dataclass(frozen=True)
class StoredUpload:
    """One upload on disk.

    Attributes:
        sidecar: its JSON file.
        image: the picture.
        bytes: of both.
        written: when, seconds since 1970.
    """

    sidecar: Path
    image: Path
    bytes: int
    written: float

    @property
    def age_s(self) -> float:
        """Seconds since then."""
        return time.time() - self.written

    def read(self) -> Upload | None:
        """Its JSON; None where it has just been removed, or is damaged."""
        return read(self.sidecar)

    def remove(self) -> None:
        """Remove it, so that no half of it is ever found as an upload."""
        self.sidecar.unlink(missing_ok=True)
        self.image.unlink(missing_ok=True)


def stem_of(request_id: str, image: int) -> str:
    """The name of an upload's files."""
    return f"{_hashed(request_id)}-{image}"


def keep(folder: Path, upload: Upload, encoded: bytes) -> int:
    """Write an upload, whole or not at all.

    One of the same request and place is replaced, unless its true label is known: identifiers should be unique.

    Returns:
        Bytes written.

    Raises:
        OSError: no room, or no right to write.
    """
    day = folder / f"{upload.at.astimezone(UTC):%Y-%m-%d}"
    stem = stem_of(upload.request_id, upload.image)
    sidecar = day / f"{stem}.json"
    before = read(sidecar)
    if before is not None:
        if before.truth is not None:
            return 0
        StoredUpload(sidecar, _image_of(sidecar), 0, 0).remove()
    image = day / (stem + SUFFIXES[encoded.startswith(_PNG)])
    content = upload.model_dump_json().encode()
    _write(image, encoded)
    try:
        _write(sidecar, content)
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    return len(encoded) + len(content)


def find(folder: Path, request_id: str, image: int) -> Path | None:
    """The JSON file of the latest upload of this request and place."""
    name = f"{stem_of(request_id, image)}.json"
    for day in reversed(_days(folder)):
        if (day / name).is_file():
            return day / name
    return None


def read(sidecar: Path) -> Upload | None:
    """An upload's JSON; None where it is not there or damaged."""
    try:
        return Upload.model_validate_json(sidecar.read_bytes())
    except (OSError, ValidationError):
        return None


def note(sidecar: Path, truth: str) -> bool:
    """Write down the true label of an upload; False where there is one already, or the upload is gone.

    Raises:
        OSError: no room, or no right to write.
    """
    with _locked(sidecar.parent.parent):
        upload = read(sidecar)
        if upload is None or upload.truth is not None:
            return False
        told = upload.model_copy(update={"truth": truth, "told_at": datetime.now(UTC).replace(microsecond=0)})
        _write(sidecar, told.model_dump_json().encode())
        return True


def entries(folder: Path) -> list[StoredUpload]:
    """All uploads, oldest first; nothing is opened."""
    found = []
    for day in _days(folder):
        sizes: dict[str, dict[str, os.stat_result]] = defaultdict(dict)
        for name, stat in _files(day):
            stem, dot, suffix = name.partition(".")
            if _STEM.fullmatch(stem):
                sizes[stem][dot + suffix] = stat
        for stem, parts in sizes.items():
            image = next((suffix for suffix in SUFFIXES if suffix in parts), None)
            if image is not None and ".json" in parts:
                size = parts[image].st_size + parts[".json"].st_size
                found.append(StoredUpload(day / f"{stem}.json", day / (stem + image), size, parts[image].st_mtime))
    return sorted(found, key=lambda entry: (entry.written, entry.sidecar))


def of_request(folder: Path, request_id: str) -> list[StoredUpload]:
    """The uploads of one request."""
    mine = f"{_hashed(request_id)}-"
    return [entry for entry in entries(folder) if entry.sidecar.name.startswith(mine)]


def trim(folder: Path, most_bytes: int, most_uploads: int, before: float) -> tuple[int, int]:
    """Remove the oldest uploads until the others fit, whatever is older than `before` (seconds since 1970), and halves
    of uploads that nobody finishes.

    Returns:
        Bytes and uploads that are left.
    """
    left = entries(folder)
    held = sum(entry.bytes for entry in left)
    while left and (held > most_bytes or len(left) > most_uploads or left[0].written < before):
        with suppress(OSError):
            left[0].remove()
        held -= left.pop(0).bytes
    remove_halves(folder, left, ABANDONED_S)
    return held, len(left)


def remove_halves(folder: Path, whole: Sequence[StoredUpload], age_s: float, request_id: str | None = None) -> None:
    """Remove what a process that was killed has left of uploads, and days of which nothing is left.

    Args:
        folder: of kept uploads.
        whole: those that stay.
        age_s: seconds; younger files stay, too.
        request_id: only files of this request; None: of any.
    """
    stays = {path for entry in whole for path in (entry.sidecar, entry.image)}
    mine = "" if request_id is None else f"{_hashed(request_id)}-"
    for day in _days(folder):
        for name, stat in _files(day):
            of_it = name.removeprefix(".").startswith(mine)
            if of_it and day / name not in stays and time.time() - stat.st_mtime >= age_s:
                with suppress(OSError):
                    (day / name).unlink()
        with suppress(OSError):  # it is not empty
            day.rmdir()


def _hashed(request_id: str) -> str:
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


def _image_of(sidecar: Path) -> Path:
    return next((path for suffix in SUFFIXES if (path := sidecar.with_suffix(suffix)).exists()), sidecar)


def _write(path: Path, content: bytes) -> None:
    """Beside its place, then renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    for last in (False, True):
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)  # of several made in one call only the last would get the mode
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            break
        except FileNotFoundError:  # an empty folder was just removed by another process
            if last:
                raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
