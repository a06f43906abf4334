"""Augmentation: what is random about a sample is a pure function of (seed, epoch, sample).

Cropping happens where the picture is decoded; flips and colour happen to the whole batch on the device. So neither the
number of data workers nor the batch's place in memory changes what the model sees, and a resumed run sees the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lensmith.image import Pixels, Preprocessing, resize

FACTORS = 4
"""Numbers a sample carries to the device: flip (0 or 1), brightness, contrast, saturation (1 = as it is)."""


@dataclass(frozen=True)
class Augment:
    """How strongly training pictures are varied.

    Attributes:
        area: smallest and largest share of the picture's area that a crop takes; None: no random crop.
        aspect: smallest and largest ratio of its width to its height.
        flip: mirror every second picture.
        colour: brightness, contrast and saturation vary by ± this share.
    """

    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    colour: float = 0.0

    def draw(self, seed: int, epoch: int, sample: int) -> np.random.Generator:
        """The sample's own stream of random numbers in this epoch."""
        # The generator counts in the lower words, so samples lie far apart; 0 is where the epoch's order begins.
        return np.random.Generator(np.random.Philox(key=(seed << 32) + epoch, counter=(sample + 1) << 64))

    def crop(self, picture: Image.Image, how: Preprocessing, random: np.random.Generator) -> Pixels:
        """RGB picture → uint8 (S, S, 3): a random part of it, resampled once.

        Source: the Inception crop (Szegedy et al., 2015), as in torchvision's RandomResizedCrop.
        """
        if self.area is None:
            return resize(picture, how)
        width, height = picture.size
        for _ in range(10):
            area = width * height * random.uniform(*self.area)
            ratio = math.exp(random.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                left, top = random.uniform(0, width - w), random.uniform(0, height - h)
                resample = Image.Resampling.BICUBIC if how.interpolation == "bicubic" else Image.Resampling.BILINEAR
                size = (how.image_size, how.image_size)
                return np.asarray(picture.resize(size, resample, box=(left, top, left + w, top + h)))
        return resize(picture, how)

    def factors(self, random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """float32 (4,): what `apply` does to the sample."""
        colour = random.uniform(1 - self.colour, 1 + self.colour, 3)
        return np.array([float(self.flip and random.random() < 0.5), *colour], dtype=np.float32)

    def apply(self, batch: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """float (N, 3, S, S) in 0..1, factors (N, 4) → the same shape, flipped and coloured sample by sample."""
        if self.flip:
            batch = torch.where(factors[:, 0].view(-1, 1, 1, 1) > 0, batch.flip(3), batch)
        if self.colour:
            brightness, contrast, saturation = (factors[:, i].view(-1, 1, 1, 1) for i in (1, 2, 3))
            batch = (batch * brightness).clamp(0, 1)
            batch = torch.lerp(_grey(batch).mean((2, 3), keepdim=True), batch, contrast).clamp(0, 1)
            batch = torch.lerp(_grey(batch), batch, saturation).clamp(0, 1)
        return batch


LEVELS = {
    "none": Augment(),
    "light": Augment(area=(0.7, 1.0), flip=True),
    "standard": Augment(area=(0.35, 1.0), flip=True, colour=0.2),
}
"""The setting `augment`."""


def _grey(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, S, S) → luma (N, 1, S, S), ITU-R 601."""
    red, green, blue = batch.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)
