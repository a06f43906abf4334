"""What a bundle remembers of its validation part, so that a service can tell when it is sent other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lensmith.bundle.drift import Reference
from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.evaluation.evaluation import Evaluation
from lensmith.exporting.samples import evenly
from lensmith.imaging.decode import read
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.classifier import Classifier

FEATURE_IMAGES = 1000
"""Means over so many images are known well enough: to a thirtieth of the features' deviation."""


def reference_of(evaluation: Evaluation, classifier: Classifier, features: bool) -> Reference:
    """The numbers of the images that a bundle was judged on.

    Args:
        evaluation: with the probabilities that the bundle will answer.
        classifier: with the engine that will serve.
        features: its graph gives them.
    """
    found = _features(classifier, evenly(evaluation.files, FEATURE_IMAGES)) if features else None
    return Reference.of(evaluation.part, evaluation.probabilities, found)


def _features(classifier: Classifier, files: Sequence[Path]) -> Tensor:
    """float32 (N, D)."""

    def one(file: Path) -> Tensor:
        _, features = classifier.engine.run_with_features(classifier.prepare(read(file))[np.newaxis])
        assert features is not None  # as the graph was exported with them
        row: Tensor = features[0]
        return row

    with ThreadPoolExecutor(allowed_cores()) as pool:
        found: Tensor = np.stack(list(track(pool.map(one, files), "Features", len(files))))
    return found
