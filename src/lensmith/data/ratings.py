"""Ratings: the labels that several annotators gave to the same pictures, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratings:
    """Labels that annotators gave to pictures: M labels of N pictures by R annotators, of C classes.

    Attributes:
        pictures: names of the N pictures.
        annotators: names of the R annotators.
        classes: names of the C classes.
        picture: int64 (M,), 0..N-1, ascending: picture of each label.
        annotator: int64 (M,), 0..R-1: annotator of each label, who has one label at most for a picture.
        label: int64 (M,), 0..C-1: class of each label.
    """

    pictures: tuple[str, ...]
    annotators: tuple[str, ...]
    classes: tuple[str, ...]
    picture: Ints
    annotator: Ints
    label: Ints

    @classmethod
    def of(cls, triples: Sequence[tuple[str, str, str]]) -> "Ratings":
        """Ratings from (picture, annotator, class) by name, each picture and annotator at most once; names are sorted.

        Raises:
            ValueError: an annotator has two labels for one picture.
        """
        pictures, annotators, classes = (tuple(sorted({triple[which] for triple in triples})) for which in range(3))
        index = [{name: number for number, name in enumerate(column)} for column in (pictures, annotators, classes)]
        numbers = np.array(
            sorted(tuple(of[name] for of, name in zip(index, triple, strict=True)) for triple in triples), np.int64
        ).reshape(-1, 3)
        if len(numbers) > 1 and (numbers[1:, :2] == numbers[:-1, :2]).all(axis=1).any():
            raise ValueError("an annotator has two labels for one picture")
        picture, annotator, label = numbers.T
        return cls(pictures, annotators, classes, picture.copy(), annotator.copy(), label.copy())

    @cached_property
    def labels_of_picture(self) -> Ints:
        """int64 (N,): number of labels of each picture."""
        return np.bincount(self.picture, minlength=len(self.pictures))

    @cached_property
    def starts(self) -> Ints:
        """int64 (N,): index of each picture's first label; every picture has one."""
        return np.cumsum(self.labels_of_picture) - self.labels_of_picture

    @cached_property
    def compared(self) -> npt.NDArray[np.bool_]:
        """bool (N,): pictures with labels of two annotators or more, which alone can agree."""
        return self.labels_of_picture > 1

    @cached_property
    def votes(self) -> tuple[Ints, Ints, Ints]:
        """Picture, class and number of votes, each int64 (K,), for the classes named; most votes of a picture first."""
        key, count = np.unique(self.picture * len(self.classes) + self.label, return_counts=True)
        picture, label = np.divmod(key, max(1, len(self.classes)))
        order = np.lexsort((label, -count, picture))
        return picture[order], label[order], count[order].astype(np.int64)

    @cached_property
    def pairs(self) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """All P pairs of labels of one picture: picture, first and second annotator, and their classes; int64 (P,).

        The first annotator is the one with the smaller index.
        """
        found: list[Ints] = []
        order = np.lexsort((self.annotator, self.picture))
        for size in np.unique(self.labels_of_picture[self.compared]).tolist():
            first, second = np.triu_indices(size, 1)
            rows = order[self.starts[self.labels_of_picture == size][:, None] + np.arange(size)]  # (pictures, size)
            one, other = rows[:, first].ravel(), rows[:, second].ravel()
            found.append(
                np.stack((self.picture[one], self.annotator[one], self.annotator[other], self.label[one],
                          self.label[other]))
            )  # fmt: skip
        picture, one, other, a, b = np.concatenate(found, axis=1) if found else np.empty((5, 0), np.int64)
        return picture, one, other, a, b
