"""Stratified samples of a part, their images preprocessed as the service does it; features and formats of images."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.core.stats import evenly_spaced
from lensmith.core.threads import map_in_order
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.decoding import read
from lensmith.imaging.formats import format_of
from lensmith.imaging.preprocessing import Preprocessing, Tensor, preprocess
from lensmith.inference.classifier import Classifier

MAX_BYTES = 500_000_000
"""Memory for preprocessed images, all together."""

FEATURE_IMAGES = 1000
"""Images for feature statistics: the standard error of a mean is then 1/30 of the feature's standard deviation."""


def stratified(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """At most `count` of the samples, with each class's share unchanged."""
    return evenly_spaced(sorted(samples, key=lambda sample: sample.label), count)


def preprocess_samples(
    images: ImageSet, samples: Sequence[Sample], count: int, how: Preprocessing
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Model input of at most `count` samples, fewer where they are large.

    Returns:
        Images, float32 (N, 3, S, S), normalised, and their classes, int64 (N,); without those that cannot be read.
    """
    most = max(1, MAX_BYTES // (3 * how.image_size**2 * 4))
    chosen = stratified(samples, min(count, most))

    def load(sample: Sample) -> Tensor | None:
        """float32 (3, S, S): one preprocessed image; None if it cannot be read."""
        try:
            return preprocess(read(images.file(sample)), how)
        except ImageError:
            return None

    with ThreadPoolExecutor(allowed_cores()) as pool:
        found = [
            (tensor, s.label) for tensor, s in zip(pool.map(load, chosen), chosen, strict=True) if tensor is not None
        ]
    tensors = np.array([tensor for tensor, _ in found], np.float32).reshape(-1, 3, how.image_size, how.image_size)
    return tensors, np.array([label for _, label in found], dtype=np.int64)


def features_of(classifier: Classifier, files: Sequence[Path]) -> Tensor:
    """Input of the last layer for at most FEATURE_IMAGES of the images, float32 (N, D).

    Args:
        classifier: a bundle whose graph has features as its second output.
        files: paths of the images.
    """

    def load(file: Path) -> Tensor:
        """float32 (1, D): features of one image."""
        _, features = classifier.engine.run_with_features(classifier.prepare(read(file))[np.newaxis])
        assert features is not None  # the graph was exported with them
        return features

    chosen = evenly_spaced(files, FEATURE_IMAGES)
    with ThreadPoolExecutor(allowed_cores()) as pool:
        return np.concatenate(list(track(pool.map(load, chosen), "Features", len(chosen))))


def formats_of(images: ImageSet) -> dict[str, int]:
    """Number of training images by the format of their files, from their first bytes, the most frequent first."""

    def key_of(sample: Sample) -> str:
        try:
            return format_of(images.file(sample)).key
        except (ImageError, OSError):  # it was left out of the training as well, or has gone since
            return ""

    cores = allowed_cores()
    found = map_in_order(key_of, images.part("train"), cores, 64 * cores, "formats")
    return {key: count for key, count in Counter(found).most_common() if key}
