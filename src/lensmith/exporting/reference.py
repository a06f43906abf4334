"""Reference statistics of the validation part, for drift scores and out-of-distribution answers in the service."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lensmith.bundle.drift import Reference
from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.evaluation.evaluation import Evaluation
from lensmith.exporting.samples import evenly_spaced
from lensmith.imaging.decode import read
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.classifier import Classifier

FEATURE_IMAGES = 1000
"""Enough for the mean of each feature: its standard error is a thirtieth of the feature's deviation."""


def reference_of(evaluation: Evaluation, classifier: Classifier, features: bool) -> Reference:
    """Reference statistics of the images that a bundle was evaluated on.

    Args:
        evaluation: the evaluation, with the probabilities that the bundle will answer.
        classifier: the bundle with the engine that will serve, at any temperature.
        features: whether the graph has features as its second output.
    """
    found = _features(classifier, evenly_spaced(evaluation.files, FEATURE_IMAGES)) if features else None
    return Reference.of(evaluation.part, evaluation.probabilities, found)


def _features(classifier: Classifier, files: Sequence[Path]) -> Tensor:
    """float32 (N, D): the input of the last layer for each image."""

    def features_of(file: Path) -> Tensor:
        """float32 (D,): features of one image."""
        _, features = classifier.engine.run_with_features(classifier.prepare(read(file))[np.newaxis])
        assert features is not None  # the graph was exported with them
        row: Tensor = features[0]
        return row

    with ThreadPoolExecutor(allowed_cores()) as pool:
        found: Tensor = np.stack(list(track(pool.map(features_of, files), "Features", len(files))))
    return found
