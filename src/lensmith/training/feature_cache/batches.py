"""Cached features in the order of an epoch, batch by batch, in the place of a data loader of images."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lensmith.data.scan import Sample
from lensmith.training.dataloading.augment import FACTORS
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.dataloading.sampler import EpochSampler, Item
from lensmith.training.feature_cache.features import Features


class FeatureBatches:
    """Batches of features; no data-loader workers are needed for them.

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
        for items in self.order:
            yield self._batch(items)

    def _batch(self, items: list[Item]) -> Batch:
        reasons = [self.views[item.view or 0].unreadable.get(item.sample) for item in items]
        good = [item for item, reason in zip(items, reasons, strict=True) if reason is None]
        indices = np.array([item.sample for item in good], dtype=np.int64)
        seen = np.array([item.view or 0 for item in good])
        images = np.empty((len(good), *self.views[0].values.shape[1:]), dtype=np.float16)
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
