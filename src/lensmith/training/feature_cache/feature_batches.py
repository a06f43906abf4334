"""Features of samples, as rows and as batches in the order of an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lensmith.data.image_set import Sample
from lensmith.training.dataloading.augment import FACTORS
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.dataloading.sampler import EpochSampler, Item


@dataclass(frozen=True)
class Features:
    """Features of samples in one view.

    Attributes:
        values: float16 (N, …), or float32 where they are exact; read-only; a row of NaN where the image cannot be read.
        unreadable: reason by number of such a row.
        computed: number of rows that were computed for this call; the others were cached.
    """

    values: np.ndarray[Any, Any]
    unreadable: dict[int, str]
    computed: int = 0

    def rows(self, numbers: Sequence[int]) -> "Features":
        """The features of some of the samples."""
        lost = {place: self.unreadable[row] for place, row in enumerate(numbers) if row in self.unreadable}
        return Features(self.values[list(numbers)], lost)


class FeatureBatches:
    """Features in the order of an epoch, batch by batch, in the place of a data loader of images.

    Args:
        samples: the samples of the rows.
        views: features of all samples in each view.
        order: the order of an epoch.
    """

    def __init__(self, samples: Sequence[Sample], views: Sequence[Features], order: EpochSampler) -> None:
        self.samples, self.views, self.order = samples, views, order
        self.labels = np.array([sample.label for sample in samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self.order)

    def _batch(self, items: list[Item]) -> Batch:
        reasons = [self.views[item.view or 0].unreadable.get(item.sample) for item in items]
        good = [item for item, reason in zip(items, reasons, strict=True) if reason is None]
        indices = np.array([item.sample for item in good], dtype=np.int64)
        seen = np.array([item.view or 0 for item in good])
        values = self.views[0].values
        images = np.empty((len(good), *values.shape[1:]), dtype=values.dtype)
        for view in np.unique(seen):
            images[seen == view] = self.views[view].values[indices[seen == view]]
        return Batch(
            images=torch.from_numpy(images),
            labels=torch.from_numpy(self.labels[indices]),
            factors=torch.empty(0, FACTORS),
            indices=indices.tolist(),
            unreadable=[
                (self.samples[item.sample].path, reason)
                for item, reason in zip(items, reasons, strict=True) if reason is not None
            ],
        )  # fmt: skip
