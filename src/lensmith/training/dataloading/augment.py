"""Augmentation: what is random about a sample is a pure function of (seed, epoch, sample, copy).

Cropping, and what works on one picture at a time, happens where the picture is decoded; flips and colour happen to the
whole batch on the device. So neither the number of data workers nor the batch's place in memory changes what the model
sees, and a resumed run sees the same.
"""

from __future__ import annotations

import math
import os
import random as python_random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from lensmith.config import TrainSettings
from lensmith.errors import MissingPackageError, SettingsError
from lensmith.imaging.preprocessing import Pixels, Preprocessing, resize

Alter = Callable[[Pixels, np.random.Generator], Pixels]
"""Changes one cropped picture, uint8 (S, S, 3), by the sample's own random numbers."""

FACTORS = 4
"""Numbers a sample carries to the device: flip (0 or 1), brightness, contrast, saturation (1 = as it is)."""


@dataclass(frozen=True)
class Augment:
    """How strongly training pictures are varied.

    Attributes:
        area: smallest and largest share of the picture's area that a crop takes; None: no random crop.
        aspect: smallest and largest ratio of its width to its height.
        alter: what else happens to the cropped picture, still in the data process.
        flip: mirror every second picture.
        colour: brightness, contrast and saturation vary by ± this share.
    """

    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    alter: Alter | None = None
    flip: bool = False
    colour: float = 0.0

    def draw(self, seed: int, epoch: int, sample: int, copy: int = 0) -> np.random.Generator:
        """The sample's own stream of random numbers in this epoch; another for each copy of it in the epoch."""
        # The generator counts in the lower words, so samples lie far apart; 0 is where the epoch's order begins.
        counter = (copy << 128) + ((sample + 1) << 64)
        return np.random.Generator(np.random.Philox(key=(seed << 32) + epoch, counter=counter))

    def picture(self, picture: Image.Image, how: Preprocessing, random: np.random.Generator) -> Pixels:
        """RGB picture → uint8 (S, S, 3), cropped and altered."""
        cropped = self.crop(picture, how, random)
        return cropped if self.alter is None else self.alter(cropped, random)

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


def build(settings: TrainSettings, image_size: int) -> Augment:
    """The augmentation that the settings ask for.

    Args:
        settings: `augment` names the level; `albumentations` a file that stands in for its flip and colour.
        image_size: pixels a side of the model, on which the file's pipeline is tried.

    Raises:
        MissingPackageError: albumentations is not installed.
        SettingsError: the file holds no pipeline that turns a picture into one of the same size.
    """
    level = LEVELS[settings.augment]
    if settings.albumentations is None:
        return level
    return replace(level, flip=False, colour=0.0, alter=Pipeline(settings.albumentations, image_size))


class Pipeline:
    """A pipeline that `albumentations.save` wrote.

    Args:
        path: .json, .yaml or .yml.
        image_size: pixels a side of the picture that it is tried on.

    Raises:
        MissingPackageError: albumentations is not installed.
        SettingsError: no such pipeline.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
        try:
            import albumentations
        except ModuleNotFoundError as error:
            raise MissingPackageError.of(error) from error
        grey = np.full((image_size, image_size, 3), 128, dtype=np.uint8)
        try:
            loaded = albumentations.load(path, data_format="json" if path.suffix == ".json" else "yaml")
            self._pipeline: Any = albumentations.Compose([loaded])
            made = self(grey, np.random.default_rng(0))
        except Exception as error:  # whatever a transform raises
            reason = " ".join(str(error).split()).rstrip(".") or "nothing is said why"
            raise _no_pipeline(path, f"It cannot be loaded or run ({type(error).__name__}: {reason}).") from error
        if (made.shape, made.dtype) != (grey.shape, grey.dtype):
            arrived = f"It makes {made.dtype} {made.shape} of uint8 {grey.shape}."
            raise _no_pipeline(path, arrived)

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Uint8 (S, S, 3) → the same, altered."""
        # Its own seeding gives each transform the same numbers, so that all of them would be applied, or none.
        with _ONE_AT_A_TIME:
            self._pipeline.set_random_state(random, python_random.Random(int(random.integers(2**63))))
            altered: Pixels = self._pipeline(image=pixels)["image"]
        return np.ascontiguousarray(altered)


def trivial(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """One random operation of random strength on uint8 (S, S, 3).

    Source: Müller and Hutter, TrivialAugment, 2021; torchvision's, on a Pillow picture, which is faster than tensors.
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        return np.asarray(_TRIVIAL(Image.fromarray(pixels)))


_ONE_AT_A_TIME = threading.Lock()
"""Threads share torch's random generator, and a pipeline's."""

_TRIVIAL = v2.TrivialAugmentWide()

_STRONG_CROP = (0.35, 1.0)
LEVELS = {
    "none": Augment(),
    "flip": Augment(flip=True),
    "light": Augment(area=(0.7, 1.0), flip=True),
    "standard": Augment(area=_STRONG_CROP, flip=True, colour=0.2),
    "trivial": Augment(area=_STRONG_CROP, flip=True, alter=trivial),
}
"""The setting `augment`."""


def _no_pipeline(path: Path, arrived: str) -> SettingsError:
    return SettingsError(
        f"A pipeline of Albumentations that keeps a picture's size was expected in {path}.",
        arrived,
        "Write it with albumentations.save(pipeline, FILE), without a change of size, normalisation or ToTensor.",
    )


def _grey(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, S, S) → luma (N, 1, S, S), ITU-R 601."""
    red, green, blue = batch.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)
