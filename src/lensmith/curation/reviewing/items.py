"""What is reviewed: the pictures of a source, in its order, each with what is known about its label."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from lensmith.core.labels import lookalike

Kind = Literal["set", "list", "new", "uploads"]
"""A labelled set, whose result is a whole manifest; a list of labelled pictures, new pictures without a label, or
uploads that a service has stored, whose result has only those decided on."""

STAMP_BYTES = 65_536
"""Bytes at a file's beginning and end that tell it from others, with its size: photos of a terabyte take seconds."""


@dataclass(frozen=True)
class ReviewItem:
    """One picture to review.

    Attributes:
        path: path as the source names it, relative to its root; may be a crop (`photo.jpg#xywh=…`).
        label: label that the source gives it; empty where there is none.
        suggested: label that a list suggests instead; empty where it suggests none.
        confidence: probability of the suggested label, 0..1; None where it is not known.
        score: number by which a list is sorted, such as the probability of a wrong label; None where there is none.
        reason: words of the list on why the picture is on it.
        named: label by each annotator, where several people labelled the picture.
        split: part of the split; empty where there is none.
        group: group of pictures that must not part; empty where there is none.
        fold: number of the cross-validation fold; empty where there is none.
    """

    path: str
    label: str = ""
    suggested: str = ""
    confidence: float | None = None
    score: float | None = None
    reason: str = ""
    named: tuple[tuple[str, str], ...] = ()
    split: str = ""
    group: str = ""
    fold: str = ""


@dataclass(frozen=True)
class ReviewSource:
    """Pictures to review, with the classes to choose from.

    Attributes:
        path: path that the user gave.
        root: folder that the paths of the items are relative to.
        kind: `set`, `list`, `new` or `uploads`.
        title: noun phrase for people, such as `the mistakes of an evaluation`.
        items: pictures in the order of the source, no path twice.
        labels: classes that the source knows, sorted.
        notes: sentences about what was left out.
    """

    path: Path
    root: Path
    kind: Kind
    title: str
    items: tuple[ReviewItem, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def index(self) -> dict[str, int]:
        """Path → position of its item."""
        return {item.path: position for position, item in enumerate(self.items)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all paths in their order: pages address pictures by position, which holds for one such order only."""
        return hashlib.sha256("\n".join(item.path for item in self.items).encode(errors="replace")).hexdigest()[:16]

    def with_labels_of(self, bundle: Sequence[str]) -> "ReviewSource":
        """A list with the classes of a bundle beside its own; one that looks like a class of the list is left out."""
        if self.kind == "set":
            return self
        added = [label for label in bundle if lookalike(label, self.labels) is None]
        return replace(self, labels=tuple(sorted({*self.labels, *added})))

    def file(self, path: str) -> Path:
        """Path of an item's picture for `imaging.decoding.read`; a crop keeps its fragment."""
        return self.root / path


def content_stamp(file: Path) -> str:
    """Size and a hash of a file's beginning and end, as text that another picture does not have; empty if unreadable.

    Args:
        file: path of a picture file.
    """
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            digest = hashlib.sha256(stream.read(STAMP_BYTES))
            if size > STAMP_BYTES:
                stream.seek(max(STAMP_BYTES, size - STAMP_BYTES))
                digest.update(stream.read(STAMP_BYTES))
    except (OSError, ValueError):
        return ""
    return f"{size}-{digest.hexdigest()[:16]}"
