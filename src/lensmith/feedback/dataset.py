"""Active learning: exports stored uploads as an image folder for the next training."""

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lensmith.core.files import atomic_write, sha256
from lensmith.core.junk import junk_name
from lensmith.core.labels import canonical_label, distinguished, lookalike, matched_label
from lensmith.core.output_names import require_folder_name
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.data.corrections import read_lists
from lensmith.data.part_names import parts_of_names
from lensmith.data.scan import MANIFEST
from lensmith.errors import OutputError
from lensmith.feedback.folder import read_uploads
from lensmith.feedback.storage import SUFFIXES, StoredUpload, Upload

INDEX = "index.csv"
LONGEST_NAME = 255
"""Longest name of a folder, in bytes."""

_Same = list[tuple[StoredUpload, Upload]]
"""Uploads of the same picture, oldest first."""


@dataclass
class FeedbackExport(Result):
    """Result of an export, in which each upload counts once.

    Attributes:
        out: path of the image folder.
        written: class → number of new images.
        there: number of uploads whose picture was in the image folder already, from this or an earlier export.
        unlabelled: number of uploads without a true label that were copied for labelling.
        unlabelled_there: number of uploads without a true label whose picture was in the folder for labelling already.
        waiting: number of uploads without a true label that were not copied.
        excluded: number of uploads that a review leaves out.
        set_aside: path and reason of each upload that could not be exported.
        warnings: sentences about lists of a review that name other uploads.
    """

    out: Path
    written: dict[str, int] = field(default_factory=dict)
    there: int = 0
    unlabelled: int = 0
    unlabelled_there: int = 0
    waiting: int = 0
    excluded: int = 0
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def export(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    unlabelled: str | os.PathLike[str] | None = None,
    relabel: str | os.PathLike[str] | None = None,
    exclude: str | os.PathLike[str] | None = None,
) -> FeedbackExport:
    """Copy uploads with a true label to OUT/LABEL, an image folder for the next training.

    A file is named by the SHA-256 of its content, so that the same picture is copied once, however often it was sent
    and is exported. Existing images are never changed, and the stored uploads stay.

    Args:
        folder: folder of stored uploads.
        out: new folder, or an image folder without parts that gets more images.
        unlabelled: folder for uploads without a true label, by the class that was answered, with an index.csv for
            labellers; None leaves them out.
        relabel: manifest of a review of the uploads, whose labels go before those of feedback.
        exclude: list of uploads to leave out, with their copies.

    Raises:
        DataError: there is no such folder, or a list that does not fit its uploads.
        OutputError: the images cannot be written there.
    """
    source, target = Path(folder), Path(out)
    guesses = Path(unlabelled) if unlabelled is not None else None
    for folder_to_write in filter(None, (target, guesses)):
        require_folder_name(folder_to_write, "the images")
    _require_apart(source, target, guesses)
    _require_class_folders(target)
    done = FeedbackExport(target)
    labels, omitted = (None if each is None else Path(each) for each in (relabel, exclude))
    labelled, others = _by_content(source, labels, omitted, done)
    there = _names_in(target)
    for digest, same in track(labelled.items(), "exporting", len(labelled)):
        _export(digest, same, there.get(digest), done)
    if guesses is None:
        done.waiting = sum(map(len, others.values()))
    else:
        _for_labellers(others, guesses, done)
    return done


def _by_content(
    source: Path, relabel: Path | None, exclude: Path | None, done: FeedbackExport
) -> tuple[dict[str, _Same], dict[str, _Same]]:
    """Uploads with a true label, and pictures without one, by the first digits of their SHA-256."""
    found = {stored.image.relative_to(source).as_posix(): (stored, upload) for stored, upload in read_uploads(source)}
    lists = read_lists(exclude, relabel, source, {name: [name] for name in found})
    done.warnings = lists.warnings
    uploads: dict[str, _Same] = defaultdict(list)
    left_out = set()
    for name, (stored, upload) in found.items():
        try:
            digest = sha256(stored.image)[:32]
        except OSError:  # the service has just removed it, or the disk is damaged
            done.set_aside.append((str(stored.image), "it cannot be read"))
            continue
        truth = lists.relabelled.get(name, upload.truth)
        uploads[digest].append((stored, upload.model_copy(update={"truth": truth})))
        if name in lists.excluded:
            left_out.add(digest)
    labelled: dict[str, _Same] = {}
    others: dict[str, _Same] = {}
    for digest, same in uploads.items():
        known = [each for each in same if each[1].truth is not None]
        if digest in left_out:
            done.excluded += len(same)
        elif known:  # a label for one of the same pictures is enough
            labelled[digest] = known
            done.there += len(same) - len(known)
        else:
            others[digest] = same
    return labelled, others


def _require_apart(source: Path, out: Path, unlabelled: Path | None) -> None:
    """Refuse targets in the folder of uploads, where the service removes files, or in each other."""
    for target in (out, unlabelled):
        if target is not None and _overlap(source, target):
            raise OutputError(
                f"A folder apart from {source} was expected for the images.",
                f"{target} is in it, or around it.",
                "Name another; the service removes old uploads there.",
            )
    if unlabelled is not None and _overlap(out, unlabelled):
        raise OutputError(
            "A folder of its own was expected for uploads without a label.",
            f"{unlabelled} and {out} are one, or one is in the other.",
            "Name another with --unlabelled, so that guesses are not learnt as labels.",
        )


def _overlap(first: Path, second: Path) -> bool:
    first, second = first.resolve(), second.resolve()
    return first == second or first in second.parents or second in first.parents


def _require_class_folders(out: Path) -> None:
    """Refuse a folder in which OUT/LABEL would not be read as a class."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"A folder was expected at {out}.", "A file is there.", "Name another path.")
    if (out / MANIFEST).exists():
        raise OutputError(
            f"A folder of classes was expected at {out}.",
            f"Its {MANIFEST} lists the images that belong to it, and none of the new ones.",
            f"Name a new folder, or remove {MANIFEST} and split the images again after the export.",
        )
    folders = [each for each in sorted(out.iterdir()) if each.is_dir()] if out.exists() else []
    parts = [each.name for each in folders if any(inner.is_dir() for inner in each.iterdir())]
    if parts := [name for name in parts if name in parts_of_names(each.name for each in folders)]:
        raise OutputError(
            f"A folder of classes was expected at {out}.",
            f"It has parts ({', '.join(parts)}).",
            f"Name one of them, as {out / parts[0]}, or a new folder.",
        )


def _names_in(out: Path) -> dict[str, Path]:
    """Stem → path of each image in the class folders."""
    return {file.stem: file for suffix in SUFFIXES for file in out.glob(f"*/*{suffix}")}


def _export(digest: str, same: _Same, there: Path | None, done: FeedbackExport) -> None:
    """Copy a picture that was sent once or several times, if all its true labels are the same."""
    stored = same[-1][0]
    typed = [str(each.truth) for _, each in same] + ([there.parent.name] if there else [])
    labels = sorted(set(map(canonical_label, typed)))
    if len(labels) > 1:
        reason = f"the same picture has several labels: {', '.join(labels)}"
        done.set_aside += [(str(each.image), reason) for each, _ in same]
        return
    label = labels[0]
    folders = [each.name for each in done.out.iterdir() if each.is_dir()] if done.out.exists() else []
    folder = matched_label(label, folders) or label
    if unusable := _no_folder(label) or _twin(label, folders):
        done.set_aside += [(str(each.image), unusable) for each, _ in same]
        return
    done.there += len(same) - (there is None)
    if there is None and _copy(stored.image, done.out / folder / f"{digest}{stored.image.suffix}", done):
        done.written[label] = done.written.get(label, 0) + 1


def _for_labellers(others: dict[str, _Same], guesses: Path, done: FeedbackExport) -> None:
    """Copy pictures without a true label by the class that was answered, and add them to the index."""
    there = _names_in(guesses)
    rows = []
    for digest, same in track(others.items(), "for labelling", len(others)):
        stored, upload = same[-1]
        done.unlabelled_there += len(same) - (digest not in there)
        if digest in there:
            continue
        guess = canonical_label(upload.label)
        folder = "unnamed" if _no_folder(guess) else guess
        file = guesses / folder / f"{digest}{stored.image.suffix}"
        if not _copy(stored.image, file, done):
            continue
        rows.append(
            {
                "file": file.relative_to(guesses).as_posix(),
                "guess": upload.label,
                "confidence": f"{upload.confidence:.4f}",
                "abstained": upload.abstained,
                "reason": upload.reason,
                "model": upload.model,
                "version": upload.version,
                "answered_at": upload.at.isoformat(),
                "request_id": upload.request_id,
                "image": upload.image,
            }
        )
    done.unlabelled = len(rows)
    if rows:
        is_new = not (guesses / INDEX).exists()
        with (guesses / INDEX).open("a", newline="", encoding="utf-8") as index:
            writer = csv.DictWriter(index, list(rows[0]))
            if is_new:
                writer.writeheader()
            writer.writerows(rows)


def _no_folder(label: str) -> str | None:
    """The reason why a label cannot be a folder's name; None where it can."""
    if (
        not label
        or junk_name(Path(label), is_folder=True)
        or set(label) & set("/\\\0")
        or len(label.encode(errors="replace")) > LONGEST_NAME
    ):
        return f"its label cannot be the name of a folder: {label[:100]!r}"
    return None


def _twin(label: str, folders: Sequence[str]) -> str | None:
    """The reason why a label cannot have a folder beside those that are there; None where it can."""
    like = None if matched_label(label, folders) else lookalike(label, folders)
    return None if like is None else f"its label only looks like a class that is there: {distinguished((label, like))}"


def _copy(source: Path, target: Path, done: FeedbackExport) -> bool:
    try:
        content = source.read_bytes()
    except OSError:
        done.set_aside.append((str(source), "it cannot be read"))
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, content)
    return True
