"""Some images of a part, spread over its classes, and prepared as the service prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lensmith.core.machine import allowed_cores
from lensmith.data.scan import ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.decode import read
from lensmith.imaging.preprocessing import Preprocessing, Tensor, preprocess

T = TypeVar("T")

MOST_BYTES = 500_000_000
"""Of prepared images that are held at once."""


def evenly(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most `count` of the items, at equal distances."""
    taken = min(count, len(items))
    return tuple(items[number * len(items) // taken] for number in range(taken))


def spread(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """At most `count` of the samples, of each class its share."""
    return evenly(sorted(samples, key=lambda sample: sample.label), count)


def prepared(
    images: ImageSet, samples: Sequence[Sample], count: int, how: Preprocessing
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """At most `count` of the samples, fewer where they are large.

    Returns:
        float32 (N, 3, S, S) and their classes, int64 (N,); without those that cannot be read.
    """
    fitting = max(1, MOST_BYTES // (3 * how.image_size**2 * 4))
    chosen = spread(samples, min(count, fitting))

    def load(sample: Sample) -> Tensor | None:
        try:
            return preprocess(read(images.file(sample)), how)
        except ImageError:
            return None

    with ThreadPoolExecutor(allowed_cores()) as pool:
        found = [
            (tensor, s.label) for tensor, s in zip(pool.map(load, chosen), chosen, strict=True) if tensor is not None
        ]
    shape = (0, 3, how.image_size, how.image_size)
    tensors = np.stack([tensor for tensor, _ in found]) if found else np.empty(shape, np.float32)
    return tensors, np.array([label for _, label in found], dtype=np.int64)
