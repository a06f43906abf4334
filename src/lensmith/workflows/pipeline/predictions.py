"""Predictions of the new model and of the champion on the same test images, in the champion's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lensmith.bundle.format import Bundle
from lensmith.core.labels import matched_label
from lensmith.core.text import listed
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import DataError, SettingsError
from lensmith.evaluation.metrics import Ints
from lensmith.evaluation.run import evaluate_samples
from lensmith.inference.classifier import load
from lensmith.workflows.pipeline.cached_answers import CachingClassifier
from lensmith.workflows.pipeline.intervals import Bools, Floats

LISTED_LABELS = 8


@dataclass(frozen=True)
class ModelPredictions:
    """A model's predictions on N images.

    Attributes:
        labels: class names; `truth` holds indices into them.
        files: paths of the N images.
        truth: int (N,), true class of each image, 0..len(labels)−1.
        probabilities: float (N, C ≥ len(labels)), 0..1; columns after the labels are classes without a label here.
        unreadable: number of further images that could not be read.
    """

    labels: tuple[str, ...]
    files: tuple[Path, ...]
    truth: Ints
    probabilities: npt.NDArray[np.floating]
    unreadable: int = 0

    @property
    def correct(self) -> Bools:
        """bool (N,), whether the likeliest class is the true one."""
        found: Bools = self.probabilities.argmax(axis=1) == self.truth
        return found

    @property
    def confidence(self) -> Floats:
        """float64 (N,), probability of the likeliest class, 0..1."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    def select(self, rows: Sequence[int]) -> ModelPredictions:
        """The predictions on some of the images, by their row numbers."""
        files = tuple(self.files[row] for row in rows)
        return replace(self, files=files, truth=self.truth[rows], probabilities=self.probabilities[rows])


def predict_test_images(bundle: Bundle, images: ImageSet, samples: Sequence[Sample]) -> ModelPredictions:
    """Answers of a bundle's selected engine to images, computed or cached.

    Raises:
        DataError: classes that the bundle does not know, or no image that can be read.
        BundleError: no engine of the bundle runs here.
    """
    classifier = load(bundle.path)
    found = evaluate_samples(CachingClassifier(classifier.bundle, classifier.engine), images, samples, "test")
    return ModelPredictions(found.labels, found.files, found.truth, found.probabilities, len(found.unreadable))


def pair_predictions(
    new: ModelPredictions,
    champion: Bundle,
    images: ImageSet,
    samples: Sequence[Sample],
    mapping: Mapping[str, str | None],
) -> tuple[ModelPredictions, ModelPredictions]:
    """Predictions of the new model and of the champion on the images whose class both know, in the champion's labels.

    Args:
        new: the new model's predictions on `samples`.
        champion: bundle of the champion.
        images: the image set that holds the samples.
        samples: the test images.
        mapping: the new model's label → the champion's, where they differ; None for a class new to the champion.

    Raises:
        SettingsError: labels that differ and are not mapped.
        DataError: as `predict_test_images`, or no image of a class that the champion knows.
        BundleError: as `predict_test_images`.
    """
    champion_label = champion_labels(new.labels, champion, mapping)
    require_same_labels(champion_label, champion, mapping)
    relabelled = tuple(champion_label.get(label) or "" for label in images.labels)
    known = [sample for sample in samples if relabelled[sample.label]]
    if not known:
        raise DataError(
            f"Images of the champion's classes were expected among the test images of {images.root}.",
            f"All {len(samples):,} are of classes that are new to it, so there is nothing to compare.",
            "Add images of its classes, or compare with none: gate: {champion: none}.",
        )
    old = predict_test_images(champion, replace(images, labels=relabelled), known)
    row_of = {file: row for row, file in enumerate(new.files)}
    old = old.select([row for row, file in enumerate(old.files) if file in row_of])
    ours = new.select([row_of[file] for file in old.files])
    column = {label: number for number, label in enumerate(champion.labels)}
    # Classes that the champion does not distinguish are summed; those it does not know share the last column.
    merged = np.zeros((len(old.files), len(champion.labels) + 1))
    for number, label in enumerate(new.labels):
        merged[:, column.get(champion_label[label] or "", -1)] += ours.probabilities[:, number]
    return replace(ours, labels=champion.labels, truth=old.truth, probabilities=merged), old


def champion_labels(
    labels: Sequence[str], champion: Bundle, mapping: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The new model's label → the champion's, as the champion spells it; None for a class new to the champion."""
    wanted = {label: mapping.get(label, label) for label in labels}
    return {label: name and (matched_label(name, champion.labels) or name) for label, name in wanted.items()}


def require_same_labels(
    champion_label: Mapping[str, str | None], champion: Bundle, mapping: Mapping[str, str | None]
) -> None:
    """Refuse a champion with other labels than the new model.

    Args:
        champion_label: the new model's label → the champion's; None for a class that the champion does not know.
        champion: bundle of the champion.
        mapping: the mapping of labels in the pipeline's file, possibly empty.

    Raises:
        SettingsError: labels that differ and are not mapped.
    """
    new = [label for label, known in champion_label.items() if known is not None and known not in champion.labels]
    gone = [label for label in champion.labels if label not in champion_label.values()]
    if not new and not gone:
        return
    parts = [f"only the new model knows {listed(new, LISTED_LABELS)}"] if new else []
    parts += [f"only the champion knows {listed(gone, LISTED_LABELS)}"] if gone else []
    raise SettingsError(
        "A champion with the new model's labels was expected, or a mapping of them.",
        f"They differ{' also with the mapping' if mapping else ''}: {'; '.join(parts)}.",
        "Map them in the pipeline's file, as in mapping: {NEW: CHAMPIONS}, with ~ for a class that is new; "
        "or compare with no champion, as in gate: {champion: none}.",
    )
