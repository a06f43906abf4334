"""Images decoded on demand, and batches of them.

All that data-loader workers need to know of a sample is in its item, so they live on when the epoch or the image size
changes. A file that cannot be read never stops a run: its sample is reported once and left out of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, read
from lensmith.imaging.preprocessing import Preprocessing, normalise, resize, shortest_side_px
from lensmith.training.dataloading.augment import FACTORS, Augment
from lensmith.training.dataloading.decode_cache import DecodedPictures
from lensmith.training.dataloading.sampler import Item


@dataclass(frozen=True)
class Batch:
    """A batch from a data loader, without the unreadable samples.

    Attributes:
        images: uint8 (N, S, S, 3) for training, float32 (N, 3, S, S) for validation; features (N, …), float16 or
            float32.
        labels: int64 (N,), class indices.
        factors: float32 (N, 4), factors for `Augment.apply`.
        indices: sample index of each row.
        unreadable: (path, reason) of each sample left out.
    """

    images: torch.Tensor
    labels: torch.Tensor
    factors: torch.Tensor
    indices: list[int]
    unreadable: list[tuple[str, str]]

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, so that copies to a GPU need not wait; called by torch's DataLoader."""
        tensors = (self.images.pin_memory(), self.labels.pin_memory(), self.factors.pin_memory())
        return Batch(*tensors, self.indices, self.unreadable)


class Batches(Protocol):
    """A part of the data, batch by batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class ImageDataset(Dataset[Any]):
    """Samples of one part, decoded on demand.

    Args:
        augment: augmentation of training images; None for validation, which preprocesses exactly as the service does.
        contents: a digest of each sample, 32 bytes, from which views are drawn: so a view of an image is the same in
            any set, order or part. None, or None for a sample: they are drawn from its index.
    """

    def __init__(
        self,
        images: ImageSet,
        samples: Sequence[Sample],
        how: Preprocessing,
        augment: Augment | None,
        seed: int,
        contents: Sequence[bytes | None] | None = None,
    ) -> None:
        self.images, self.samples, self.how, self.augment, self.seed = images, samples, how, augment, seed
        self._view_draws = [
            index if content is None else int.from_bytes(content[:8], "little") >> 1
            for index, content in enumerate(contents or [None] * len(samples))
        ]
        self.decoded: DecodedPictures | None = None
        """Pictures of all samples from the decode cache, for the image size of the current phase."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: Item) -> tuple[Any, int, Any, int, str]:
        index = item.sample
        sample = self.samples[index]
        how = self.how if item.size is None else replace(self.how, image_size=item.size)
        factors = np.zeros(FACTORS, dtype=np.float32)
        try:
            if self.augment is None:
                picture = self._picture(index, shortest_side_px(how))
                return normalise(resize(picture, how), how), sample.label, factors, index, ""
            augment = self.augment if item.view != 0 else Augment()
            draw = (item.epoch, index, item.copy) if item.view is None else (item.view, self._view_draws[index])
            random = augment.draw(self.seed, *draw)
            factors = augment.factors(random)
            picture = self._picture(index, self.shortest_px(how, augment))
            return augment.picture(picture, how, random), sample.label, factors, index, ""
        except ImageError as error:
            return None, sample.label, factors, index, error.arrived

    @staticmethod
    def shortest_px(how: Preprocessing, augment: Augment | None) -> int:
        """Shorter side, in pixels, of the decoded pictures from which crops are taken.

        The smallest crop is enlarged most, and would be blurred if the picture had fewer pixels.
        """
        smallest = math.sqrt(augment.area[0]) if augment and augment.area else 1.0
        return math.ceil(shortest_side_px(how) / smallest)

    def _picture(self, index: int, shortest_px: int) -> Image.Image:
        fits = self.decoded is not None and self.decoded.shortest_px == shortest_px
        cached = self.decoded[index] if self.decoded is not None and fits else None
        if cached is not None:
            return cached
        encoded = read(self.images.file(self.samples[index]))
        return decode(encoded, shortest_px, value_ranges=self.how.value_ranges)

    def collate(self, items: list[tuple[Any, int, Any, int, str]]) -> Batch:
        """One batch of items, of which there may be none, without the unreadable ones."""
        good = [item for item in items if item[0] is not None]
        bad = [(self.samples[index].path, reason) for pixels, _, _, index, reason in items if pixels is None]
        size = self.how.image_size
        empty = (0, size, size, 3) if self.augment else (0, 3, size, size)
        return Batch(
            images=torch.from_numpy(np.stack([item[0] for item in good])) if good else torch.empty(empty),
            labels=torch.tensor([item[1] for item in good], dtype=torch.int64),
            factors=torch.from_numpy(np.stack([item[2] for item in good])) if good else torch.empty(0, FACTORS),
            indices=[item[3] for item in good],
            unreadable=bad,
        )
