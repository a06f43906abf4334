"""Boxes of several annotators around one object, matched by overlap, so that their labels can be compared."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lensmith.core.labels import canonical_label
from lensmith.data.annotation import Annotation
from lensmith.data.ratings import Floats
from lensmith.imaging.crops import Box, box_of, picture_of

LEAST_OVERLAP = 0.5
"""Intersection over union from which on boxes of two annotators are of one object, as in Pascal VOC's evaluation."""
_PAIRS = 1 << 20
"""Pairs of boxes whose overlap is computed at once."""


class MatchedBoxes(NamedTuple):
    """Annotations whose matched boxes have one path.

    Attributes:
        rows: the annotations in their order; the path of a matched box is that of the box that stands for its object.
        boxes: number of different boxes before, of pictures on which two annotators or more drew some.
        objects: number of objects that they are of.
        alone: number of these that one annotator alone has drawn.
    """

    rows: list[Annotation]
    boxes: int = 0
    objects: int = 0
    alone: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence on what was matched, if anything was compared."""
        if not self.objects:
            return ()
        return (
            f"Boxes of several annotators are of one object where they overlap by half (IoU ≥ {LEAST_OVERLAP}): "
            f"{self.boxes:,} boxes are of {self.objects:,} objects, {self.alone:,} of which one annotator alone drew.",
        )


class _Drawn(NamedTuple):
    """One box of one annotator."""

    box: Box
    annotator: str


def match_boxes(annotations: Sequence[Annotation]) -> MatchedBoxes:
    """Give boxes of one object, drawn by different annotators, one path.

    Pairs of boxes in a picture are taken by overlap, the largest first, and of equal ones those of one class first. An
    object has one box at most of each annotator; the one that overlaps best with the others stands for all.

    Args:
        annotations: labels of boxes, and of whole pictures, which stay as they are.
    """
    rows = list(annotations)
    if len({row.annotator for row in rows}) < 2:
        return MatchedBoxes(rows)
    drawn: dict[str, dict[_Drawn, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows):
        path = Path(row.path)
        if "#xywh=" in row.path and (box := box_of(path)) is not None:
            who = canonical_label(row.annotator).casefold()
            drawn[picture_of(path).as_posix()][_Drawn(box, who)].append(number)
    boxes = objects = alone = 0
    for of_picture in drawn.values():
        if len({each.annotator for each in of_picture}) < 2:
            continue
        members = sorted(of_picture)  # so that the same box stands for an object in whatever order the rows are
        labels = [frozenset(canonical_label(rows[number].label) for number in of_picture[each]) for each in members]
        found = _objects(members, labels)
        boxes += len({each.box for each in members})
        objects += len(found)
        alone += sum(len(each) == 1 for each in found)
        for group in found:
            stands = rows[of_picture[members[_central(group, members)]][0]].path
            for member in group:
                for number in of_picture[members[member]]:
                    rows[number] = rows[number]._replace(path=stands)
    return MatchedBoxes(rows, boxes, objects, alone)


def _objects(members: Sequence[_Drawn], labels: Sequence[frozenset[str]]) -> list[list[int]]:
    """Groups of indices of boxes that are of one object."""
    of = list(range(len(members)))
    groups: dict[int, list[int]] = {number: [number] for number in of}
    for _, a, b in sorted(_pairs(members), key=lambda pair: (-pair[0], labels[pair[1]].isdisjoint(labels[pair[2]]))):
        one, other = of[a], of[b]
        people = Counter(members[each].annotator for each in (*groups[one], *groups[other]))
        if one == other or max(people.values()) > 1:
            continue
        for each in groups[other]:
            of[each] = one
        groups[one] += groups.pop(other)
    return [sorted(group) for group in groups.values()]


def _pairs(members: Sequence[_Drawn]) -> Iterator[tuple[float, int, int]]:
    """Overlap and both indices of each pair of boxes of two annotators that overlap enough."""
    block = max(1, _PAIRS // len(members))
    for start in range(0, len(members), block):
        overlap = _overlaps(members[start : start + block], members)
        for a, b in zip(*np.nonzero(overlap >= LEAST_OVERLAP), strict=True):
            one, other = start + int(a), int(b)
            if one < other and members[one].annotator != members[other].annotator:
                yield float(overlap[a, b]), one, other


def _overlaps(one: Sequence[_Drawn], other: Sequence[_Drawn]) -> Floats:
    """Intersection over union, float64 (A, B), 0..1, of A boxes with B boxes."""
    first, second = (np.array([each.box for each in part], np.float64).reshape(-1, 4) for part in (one, other))
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    common = np.prod(np.clip(end - start, 0, None), axis=2)
    areas = np.prod(first[:, 2:], axis=1)[:, None] + np.prod(second[:, 2:], axis=1)[None]
    return np.asarray(common / (areas - common), np.float64)


def _central(group: Sequence[int], members: Sequence[_Drawn]) -> int:
    """The box of a group that overlaps best with the others."""
    drawn = [members[each] for each in group]
    return group[int(_overlaps(drawn, drawn).sum(axis=1).round(9).argmax())]
