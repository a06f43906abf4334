"""A picture with its labels, as all writers of annotation formats take it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lensmith.data.files import SetAside
from lensmith.data.part_names import Part
from lensmith.imaging.crops import Box


class Mark(NamedTuple):
    """A label of a picture or of a box in it, by a person or a model.

    Attributes:
        label: name of the class.
        box: rectangle in pixels of the upright picture; None for the whole picture.
        annotator: name of the person; empty where it is not known.
        score: the model's confidence, 0..1; None for a person's label.
        model: name and version of the model; empty for a person's label.
    """

    label: str
    box: Box | None = None
    annotator: str = ""
    score: float | None = None
    model: str = ""


@dataclass(frozen=True)
class MarkedPicture:
    """A picture with its labels.

    Attributes:
        path: path relative to the set's root.
        part: train, val or test; None where none is given.
        group: name of its group; empty without one.
        marks: labels that people gave, each once for an annotator.
        predictions: labels that a model gave.
        size: width and height of the upright picture in pixels; (0, 0) where nobody asked for it.
    """

    path: str
    part: Part | None = None
    group: str = ""
    marks: tuple[Mark, ...] = ()
    predictions: tuple[Mark, ...] = ()
    size: tuple[int, int] = (0, 0)

    @property
    def labels(self) -> tuple[tuple[str, Box | None], ...]:
        """Class and box of each label, once however many annotators gave it."""
        return self.labels_of(None)

    def labels_of(self, annotator: str | None) -> tuple[tuple[str, Box | None], ...]:
        """Class and box of each label that an annotator gave, once; of all where that is None."""
        marks = (mark for mark in self.marks if annotator in (None, mark.annotator))
        return tuple(dict.fromkeys((mark.label, mark.box) for mark in marks))


@dataclass
class MarkedPictures:
    """Pictures under one root with their labels.

    Attributes:
        root: folder that paths are relative to.
        pictures: the pictures, sorted by path.
        classes: names of all classes, sorted; those of a model are in it.
        notes: sentences about how the labels were read, and about what a format does not hold.
        aside: path and reason of what is left out.
    """

    root: Path
    pictures: list[MarkedPicture] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    aside: SetAside = field(default_factory=list)

    @property
    def has_boxes(self) -> bool:
        """Whether labels are those of boxes."""
        return any(mark.box for picture in self.pictures for mark in picture.marks)

    def parted(self) -> Iterator[tuple[Part | None, list[MarkedPicture]]]:
        """Parts in the order train, val, test, none, with their pictures; parts without any are left out."""
        for part in ("train", "val", "test", None):
            if found := [picture for picture in self.pictures if picture.part == part]:
                yield part, found

    def note_left_out(self, counts: Iterable[tuple[int, str]], title: str) -> None:
        """Add a note on what the format named `title` does not hold, by number and kind."""
        lost = [f"{kind} ({count:,})" for count, kind in counts if count]
        if lost:
            self.notes.append(
                f"{title} has no place for some of the labels' data, which is left out: {', '.join(lost)}."
            )

    def annotators(self) -> set[str]:
        """Names of all annotators."""
        return {mark.annotator for picture in self.pictures for mark in picture.marks} - {""}

    def groups(self) -> set[str]:
        """Names of all groups."""
        return {picture.group for picture in self.pictures} - {""}
