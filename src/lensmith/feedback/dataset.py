"""Uploads that a service has kept: looked at, turned into an image folder for the next training, and deleted."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lensmith.config.values import parse_duration
from lensmith.core.progress import track
from lensmith.data.scan import MANIFEST, PARTS
from lensmith.errors import DataError, OutputError, SettingsError
from lensmith.feedback.storage import SUFFIXES, StoredUpload, Upload, entries, of_request, remove_halves

INDEX = "index.csv"
COLUMNS = (
    "file",
    "guess",
    "confidence",
    "abstained",
    "reason",
    "model",
    "version",
    "answered_at",
    "request_id",
    "image",
)
LONGEST_NAME = 255
"""Bytes of a file's or folder's name."""

_Same = list[tuple[StoredUpload, Upload]]
"""Uploads of one picture, oldest first."""


@dataclass(frozen=True)
class UploadSummary:
    """What lies in a folder of kept uploads.

    Attributes:
        folder: where.
        uploads: how many.
        bytes: that they take.
        labelled: uploads whose true label is known.
        right: those of them that were answered so.
        labels: class → counts by `kept` (answered so), `labelled` (truly so) and the reasons of the former.
        reasons: `unsure`, `odd`, `random` → uploads.
        oldest: when the first of them was answered; None: there is none.
        newest: and the last.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        times = {name: at.isoformat() if (at := getattr(self, name)) else None for name in ("oldest", "newest")}
        return {**asdict(self), "folder": str(self.folder), **times}


@dataclass
class FeedbackExport:
    """What was copied: each upload counts in one of these.

    Attributes:
        out: the image folder.
        written: class → new images.
        there: uploads whose picture was there already, from this or an earlier export.
        unlabelled: uploads without a true label that were copied to be labelled.
        waiting: uploads without a true label that were not.
        set_aside: uploads that could not be exported, with the reason.
    """

    out: Path
    written: dict[str, int] = field(default_factory=dict)
    there: int = 0
    unlabelled: int = 0
    waiting: int = 0
    set_aside: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class DeletedUploads:
    """What was removed.

    Attributes:
        removed: uploads.
        bytes: that they took.
        left: uploads that are still there.
    """

    removed: int
    bytes: int
    left: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def kept_uploads(folder: str | os.PathLike[str]) -> UploadSummary:
    """Count the uploads in a folder that a service keeps them in.

    Raises:
        DataError: there is no such folder.
    """
    found = _read(Path(folder), "looking")
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for _, upload in found:
        labels[upload.label].update(("kept", upload.reason))
        if upload.truth is not None:
            labels[upload.truth]["labelled"] += 1
    told = [upload for _, upload in found if upload.truth is not None]
    times = [upload.at for _, upload in found]
    return UploadSummary(
        folder=Path(folder),
        uploads=len(found),
        bytes=sum(entry.bytes for entry, _ in found),
        labelled=len(told),
        right=sum(upload.truth == upload.label for upload in told),
        labels={label: dict(labels[label]) for label in sorted(labels)},
        reasons=dict(sorted(Counter(upload.reason for _, upload in found).items())),
        oldest=min(times, default=None),
        newest=max(times, default=None),
    )


def export_feedback(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], unlabelled: str | os.PathLike[str] | None = None
) -> FeedbackExport:
    """Copy uploads whose true label is known to OUT/LABEL, an image folder for the next training.

    A file is named by the SHA-256 of its content, so that the same picture is copied once, however often it came and is
    exported. Nothing that is there is changed, and what is kept stays where it is.

    Args:
        folder: of kept uploads.
        out: a new folder, or an image folder without parts that gets more images.
        unlabelled: where the others go, by the class that the model took them for, with an index.csv; None: nowhere.

    Raises:
        DataError: there is no such folder.
        OutputError: the images cannot go there.
    """
    source, target = Path(folder), Path(out)
    guesses = Path(unlabelled) if unlabelled is not None else None
    _require_apart(source, target, guesses)
    _require_class_folders(target)
    done = FeedbackExport(target)
    labelled: dict[str, _Same] = defaultdict(list)
    others: dict[str, _Same] = defaultdict(list)
    for entry, upload in _read(source, "reading"):
        digest = _digest(entry)
        if digest is None:
            done.set_aside.append((str(entry.image), "it cannot be read"))
        else:
            (others if upload.truth is None else labelled)[digest].append((entry, upload))
    for digest in others.keys() & labelled.keys():  # of these it is known what they are
        done.there += len(others.pop(digest))
    there = _names_in(target)
    for digest, same in track(labelled.items(), "exporting", len(labelled)):
        _export(digest, same, there.get(digest), done)
    if guesses is None:
        done.waiting = sum(map(len, others.values()))
    else:
        _for_labellers(others, guesses, done)
    return done


def clear_feedback(
    folder: str | os.PathLike[str],
    *,
    older_than: float | str | None = None,
    request_ids: Sequence[str] = (),
    everything: bool = False,
) -> DeletedUploads:
    """Delete kept uploads, with all that is known of them. Copies that were exported are not looked for.

    Args:
        folder: of kept uploads.
        older_than: seconds, or as 30d; those that were answered longer ago.
        request_ids: those of these requests.
        everything: all of them.

    Raises:
        SettingsError: nothing was said, several of these, or no duration.
        DataError: there is no such folder.
    """
    if sum((older_than is not None, bool(request_ids), everything)) != 1:
        raise SettingsError(
            "One way to choose uploads was expected.",
            "None or several arrived.",
            "Say --older-than 30d, or --request-id ID, or --all.",
        )
    seconds = parse_duration(older_than)
    if older_than is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
        raise SettingsError(
            "A duration was expected for older_than.", f"{older_than!r} arrived.", "Say it as 30d, 12h or 90m."
        )
    source = Path(folder)
    found = _entries(source)
    if request_ids:
        wanted = [entry for request_id in dict.fromkeys(request_ids) for entry in of_request(source, request_id)]
    elif older_than is not None:
        wanted = [entry for entry in found if entry.age_s > seconds]
    else:
        wanted = found
    for entry in track(wanted, "deleting", len(wanted)):
        entry.remove()
    for request_id in dict.fromkeys(request_ids) or (None,):  # of what was cut off while it was written, too
        remove_halves(source, entries(source), seconds if older_than is not None else 0, request_id)
    return DeletedUploads(len(wanted), sum(entry.bytes for entry in wanted), len(found) - len(wanted))


def _entries(folder: Path) -> list[StoredUpload]:
    if not folder.is_dir():
        raise DataError(
            f"A folder of kept uploads was expected at {folder}.",
            "It is a file." if folder.exists() else "Nothing is there.",
            "Name the one that `lensmith serve --keep` has.",
        )
    return entries(folder)


def _read(folder: Path, what: str) -> list[tuple[StoredUpload, Upload]]:
    """All uploads, oldest first; the service may remove some of them meanwhile."""
    found = _entries(folder)
    return [(entry, upload) for entry in track(found, what, len(found)) if (upload := entry.read())]


def _require_apart(source: Path, *targets: Path | None) -> None:
    """Refuse to write where the service cleans up, or over what is kept."""
    whole = source.resolve()
    for target in targets:
        if target is None:
            continue
        there = target.resolve()
        if there == whole or whole in there.parents or there in whole.parents:
            raise OutputError(
                f"A folder apart from {source} was expected for the images.",
                f"{target} is in it, or around it.",
                "Name another; the service removes old uploads there.",
            )
    first, second = targets
    if second is not None and first is not None and _one_in_the_other(first.resolve(), second.resolve()):
        raise OutputError(
            "A folder of its own was expected for uploads without a label.",
            f"{second} and {first} are one, or one is in the other.",
            "Name another with --unlabelled, so that guesses are not learnt as labels.",
        )


def _one_in_the_other(a: Path, b: Path) -> bool:
    return a == b or a in b.parents or b in a.parents


def _require_class_folders(out: Path) -> None:
    """Refuse a place where OUT/LABEL would not be read as a class."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"A folder was expected at {out}.", "A file is there.", "Name another place.")
    if (out / MANIFEST).exists():
        raise OutputError(
            f"A folder of classes was expected at {out}.",
            f"Its {MANIFEST} says which images belong to it, and names none of the new ones.",
            f"Name a new folder, or remove {MANIFEST} and split anew when the images are there.",
        )
    parts = [part for part in PARTS if (out / part).is_dir() and any(each.is_dir() for each in (out / part).iterdir())]
    if parts:
        raise OutputError(
            f"A folder of classes was expected at {out}.",
            f"It has parts ({', '.join(parts)}).",
            f"Name one of them, as {out / parts[0]}, or a new folder.",
        )


def _names_in(out: Path) -> dict[str, Path]:
    """Stem → image, of what lies in class folders already."""
    return {file.stem: file for suffix in SUFFIXES for file in out.glob(f"*/*{suffix}")}


def _digest(entry: StoredUpload) -> str | None:
    try:
        with entry.image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError:  # the service has just removed it, or the disk is damaged
        return None


def _export(digest: str, same: _Same, there: Path | None, done: FeedbackExport) -> None:
    """Copy a picture that came once or several times, if all agree on what it is."""
    entry, upload = same[-1]
    labels = sorted({str(each.truth) for _, each in same} | ({there.parent.name} if there else set()))
    if len(labels) > 1:
        reason = f"the same picture has several labels: {', '.join(labels)}"
        done.set_aside += [(str(each.image), reason) for each, _ in same]
        return
    label = str(upload.truth)
    if unusable := _no_folder(label):
        done.set_aside += [(str(each.image), unusable) for each, _ in same]
        return
    done.there += len(same) - (there is None)
    if there is None and _copy(entry.image, done.out / label / f"{digest}{entry.image.suffix}", done):
        done.written[label] = done.written.get(label, 0) + 1


def _for_labellers(others: dict[str, _Same], guesses: Path, done: FeedbackExport) -> None:
    """Copy pictures without a label by what the model took them for, and add them to the index."""
    there = _names_in(guesses)
    rows = []
    for digest, same in track(others.items(), "for labelling", len(others)):
        entry, upload = same[-1]
        done.there += len(same) - (digest not in there)
        if digest in there:
            continue
        folder = "unnamed" if _no_folder(upload.label) else upload.label
        file = guesses / folder / f"{digest}{entry.image.suffix}"
        if not _copy(entry.image, file, done):
            continue
        rows.append(
            (
                file.relative_to(guesses).as_posix(), upload.label, f"{upload.confidence:.4f}", upload.abstained,
                upload.reason, upload.model, upload.version, upload.at.isoformat(), upload.request_id, upload.image,
            )
        )  # fmt: skip
    done.unlabelled = len(rows)
    if rows:
        index = guesses / INDEX
        new = not index.exists()
        with index.open("a", newline="", encoding="utf-8") as file_:
            writer = csv.writer(file_)
            if new:
                writer.writerow(COLUMNS)
            writer.writerows(rows)


def _no_folder(label: str) -> str | None:
    """Why a label cannot be a class folder's name; None: it can."""
    if label.startswith(".") or set(label) & set("/\\\0") or len(label.encode(errors="replace")) > LONGEST_NAME:
        return f"its label cannot be the name of a folder: {label[:100]!r}"
    return None


def _copy(source: Path, target: Path, done: FeedbackExport) -> bool:
    """Whole or not at all."""
    try:
        content = source.read_bytes()
    except OSError:
        done.set_aside.append((str(source), "it cannot be read"))
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return True
