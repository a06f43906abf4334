"""What a bundle answers on the test images, and two bundles' answers side by side, in the champion's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lensmith.bundle.format import Bundle
from lensmith.data.scan import ImageSet, Sample
from lensmith.errors import SettingsError
from lensmith.evaluation.metrics import Ints
from lensmith.evaluation.run import judge
from lensmith.inference.classifier import load
from lensmith.workflows.pipeline.intervals import Bools, Floats


@dataclass(frozen=True)
class Answers:
    """A model's answers on N images.

    Attributes:
        labels: classes that `truth` numbers.
        files: of the images.
        truth: int (N,).
        probabilities: float (N, C), over the labels, and at the end those that have none there.
        unreadable: images that have no answer.
    """

    labels: tuple[str, ...]
    files: tuple[Path, ...]
    truth: Ints
    probabilities: npt.NDArray[np.floating]
    unreadable: int = 0

    @property
    def right(self) -> Bools:
        """bool (N,), whether the likeliest class is the true one."""
        found: Bools = self.probabilities.argmax(axis=1) == self.truth
        return found

    @property
    def confidence(self) -> Floats:
        """float (N,), of the likeliest class, 0..1."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    def at(self, rows: Sequence[int]) -> Answers:
        """Those of some images."""
        files = tuple(self.files[row] for row in rows)
        return replace(self, files=files, truth=self.truth[rows], probabilities=self.probabilities[rows])


def answers_of(bundle: Bundle, images: ImageSet, samples: Sequence[Sample]) -> Answers:
    """Run images through a bundle's chosen engine.

    Raises:
        DataError: classes that the bundle does not know, or no image that can be read.
        BundleError: no engine of the bundle runs here.
    """
    found = judge(load(bundle.path), images, samples, "test")
    return Answers(found.labels, found.files, found.truth, found.probabilities, len(found.unreadable))


def compared(
    mine: Answers, champion: Bundle, images: ImageSet, samples: Sequence[Sample], mapping: Mapping[str, str | None]
) -> tuple[Answers, Answers]:
    """The new model's and the champion's answers on the images whose class both know, in the champion's labels.

    Args:
        mine: what the new model answered.
        champion: bundle of the champion.
        images: the set.
        samples: the images that `mine` is of.
        mapping: the new model's label → the champion's, where they differ; None: the champion does not know it.

    Raises:
        SettingsError: labels that differ and are not mapped.
        DataError, BundleError: as `answers_of`.
    """
    said = {label: mapping.get(label, label) for label in mine.labels}
    require_known(said, champion, mapping)
    named = tuple(said.get(label) or "" for label in images.labels)
    known = [sample for sample in samples if named[sample.label]]
    theirs = answers_of(champion, replace(images, labels=named), known)
    row_of = {file: row for row, file in enumerate(mine.files)}
    both = [row for row, file in enumerate(theirs.files) if file in row_of]
    theirs = theirs.at(both)
    ours = mine.at([row_of[file] for file in theirs.files])
    column = {label: number for number, label in enumerate(champion.labels)}
    merged = np.zeros((len(both), len(champion.labels) + 1))
    for number, label in enumerate(mine.labels):
        merged[:, column.get(said[label] or "", -1)] += ours.probabilities[:, number]
    return replace(ours, labels=champion.labels, truth=theirs.truth, probabilities=merged), theirs


def require_known(said: Mapping[str, str | None], champion: Bundle, mapping: Mapping[str, str | None]) -> None:
    """Refuse a champion with other labels than the new model.

    Args:
        said: the new model's label → what the champion calls it; None: it does not know it.
        champion: its bundle.
        mapping: what the user has said of labels that differ.

    Raises:
        SettingsError: labels that differ and are not mapped.
    """
    new = [label for label, known in said.items() if known is not None and known not in champion.labels]
    gone = [label for label in champion.labels if label not in said.values()]
    if not new and not gone:
        return
    parts = [f"only the new model knows {_listed(new)}"] if new else []
    parts += [f"only the champion knows {_listed(gone)}"] if gone else []
    raise SettingsError(
        "A champion with the new model's labels was expected, or a mapping of them.",
        f"They differ{' also with the mapping' if mapping else ''}: {'; '.join(parts)}.",
        "Say in the pipeline's file what is what, as in mapping: {NEW: CHAMPIONS}, or ~ for a class that is new; "
        "or compare with none, as in gate: {champion: none}.",
    )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
    return f"{', '.join(labels[:8])}{more}"
