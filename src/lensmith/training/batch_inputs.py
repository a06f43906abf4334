"""Batches on their way into the step: pixels become floats on the device, augmented and mixed (MixUp, CutMix).

Augmentation and mixing see the whole batch before it is cut into chunks, so memory never changes the recipe.
"""

import torch
from torch import Tensor

from lensmith.training.dataloading.augment import Augment
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.dataloading.mixup import Mixer

IMAGES_AT_ONCE = 32
"""Images that are augmented together; always the same number, so that it never depends on memory."""


class BatchInputs:
    """Turns loaded batches into the step's inputs and targets.

    Args:
        mixer: MixUp and CutMix; None: images are not mixed.
        seed: the run's seed, which the mixing draws from.

    Attributes:
        mixes: whether the phase mixes images.
    """

    def __init__(self, augment: Augment, mixer: Mixer | None, seed: int, device: torch.device) -> None:
        self.augment, self.mixer, self.seed, self.device = augment, mixer, seed, device
        self.mixes = True

    def of_features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features float32 (N, …) and targets int64 (N,), on the device."""
        features = batch.images.to(self.device, non_blocking=True).float()
        return features, batch.labels.to(self.device, non_blocking=True)

    def of_images(self, batch: Batch, step: int, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
        """Augmented images float32 (N, 3, S, S) in 0..1, and targets, on the device.

        Targets are int64 (N,), or float32 (N, C) where the batch was mixed.

        Args:
            batch: decoded images, uint8 (N, S, S, 3).
            step: the run's 0-based step, which the mixing draws from.
            layout: the memory format of the images.
        """
        # Decoded images are (N, S, S, 3), which is channels_last memory once the axes are renamed.
        decoded, labels, factors = batch.images.permute(0, 3, 1, 2), batch.labels, batch.factors
        images = torch.empty(decoded.shape, dtype=torch.float32, device=self.device, memory_format=layout)
        for start in range(0, len(labels), IMAGES_AT_ONCE):
            piece = slice(start, start + IMAGES_AT_ONCE)
            raw = decoded[piece].to(self.device, non_blocking=True).float().div_(255)
            images[piece] = self.augment.apply(raw, factors[piece].to(self.device, non_blocking=True))
        targets = labels.to(self.device, non_blocking=True)
        if self.mixer is not None and self.mixes and len(labels):
            images, targets = self.mixer(images, targets, self.seed, step)
        return images, targets
