"""Augmentation, whose random numbers are a pure function of (seed, epoch, sample, copy).

Crops and other changes of single images happen where the image is decoded; flips and colour are applied to the whole
batch on the device. So neither the number of data-loader workers nor the device changes what the model sees, and a
resumed run sees the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from lensmith.config import TrainSettings
from lensmith.imaging.preprocessing import Pixels, Preprocessing, resize
from lensmith.training.dataloading.pipelines import AlbumentationsPipeline, TorchvisionPipeline, seeded_torch

Alter = Callable[[Pixels, np.random.Generator], Pixels]
"""A transform of one cropped image, uint8 (S, S, 3) → the same, with the sample's own random numbers."""

FACTORS = 4
"""Factors of each sample that are applied on the device: flip (0 or 1), brightness, contrast, saturation (1: none)."""


@dataclass(frozen=True)
class Augment:
    """Strength of the augmentation of training images.

    Attributes:
        area: smallest and largest share of the image's area that a random crop takes; None: no random crop.
        aspect: smallest and largest ratio of a crop's width to its height.
        alter: further transform of the cropped image, in the data-loader worker; None: no transform.
        flip: whether every second image is mirrored.
        colour: largest relative change of brightness, contrast and saturation, 0..1.
    """

    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    alter: Alter | None = None
    flip: bool = False
    colour: float = 0.0

    def draw(self, seed: int, epoch: int, sample: int, copy: int = 0) -> np.random.Generator:
        """A generator of random numbers for one sample in one epoch, and for one of its copies there."""
        # The generator counts in the lower words, so samples lie far apart; counter 0 is for the epoch's order.
        counter = (copy << 128) + ((sample + 1) << 64)
        return np.random.Generator(np.random.Philox(key=(seed << 32) + epoch, counter=counter))

    def picture(self, picture: Image.Image, how: Preprocessing, random: np.random.Generator) -> Pixels:
        """Crop and transform an RGB picture: uint8 (S, S, 3)."""
        cropped = self.crop(picture, how, random)
        return cropped if self.alter is None else self.alter(cropped, random)

    def crop(self, picture: Image.Image, how: Preprocessing, random: np.random.Generator) -> Pixels:
        """Crop a random part of an RGB picture, resampled once: uint8 (S, S, 3).

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
        """Factors of one sample for `apply`, float32 (4,)."""
        colour = random.uniform(1 - self.colour, 1 + self.colour, 3)
        return np.array([float(self.flip and random.random() < 0.5), *colour], dtype=np.float32)

    def apply(self, batch: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Flip and colour images float (N, 3, S, S), 0..1, by factors float32 (N, 4); the result is alike."""
        if self.flip:
            batch = torch.where(factors[:, 0].view(-1, 1, 1, 1) > 0, batch.flip(3), batch)
        if self.colour:
            brightness, contrast, saturation = (factors[:, i].view(-1, 1, 1, 1) for i in (1, 2, 3))
            batch = (batch * brightness).clamp(0, 1)
            batch = torch.lerp(_grey(batch).mean((2, 3), keepdim=True), batch, contrast).clamp(0, 1)
            batch = torch.lerp(_grey(batch), batch, saturation).clamp(0, 1)
        return batch


def build(settings: TrainSettings, image_size: int) -> Augment:
    """The augmentation that the settings ask for.

    Args:
        settings: the run's settings; `augment` names the level, `transforms` or `albumentations` a file that replaces
            flip and colour.
        image_size: pixels a side of the image on which the file's pipeline is tried.

    Raises:
        MissingPackageError: albumentations is not installed.
        SettingsError: the file holds no pipeline that turns a picture into one of the same size.
    """
    level = LEVELS[settings.augment]
    alter: Alter
    if settings.transforms is not None:
        alter = TorchvisionPipeline(settings.transforms, image_size)
    elif settings.albumentations is not None:
        alter = AlbumentationsPipeline(settings.albumentations, image_size)
    else:
        return level
    return replace(level, flip=False, colour=0.0, alter=alter)


def trivial_augment(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """TrivialAugment: one random operation of random strength on an image uint8 (S, S, 3).

    Source: Müller and Hutter, TrivialAugment, 2021; torchvision's, on a Pillow image, which is faster than on tensors.
    """
    with seeded_torch(random):
        return np.asarray(_TRIVIAL(Image.fromarray(pixels)))


_TRIVIAL = v2.TrivialAugmentWide()

_STRONG_CROP = (0.35, 1.0)
LEVELS = {
    "none": Augment(),
    "flip": Augment(flip=True),
    "light": Augment(area=(0.7, 1.0), flip=True),
    "standard": Augment(area=_STRONG_CROP, flip=True, colour=0.2),
    "trivial": Augment(area=_STRONG_CROP, flip=True, alter=trivial_augment),
}
"""Augmentation by value of the setting `augment`."""


def _grey(batch: torch.Tensor) -> torch.Tensor:
    """Luma (N, 1, S, S) of images float (N, 3, S, S), by ITU-R 601."""
    red, green, blue = batch.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)
