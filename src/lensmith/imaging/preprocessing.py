"""The image contract: encoded bytes → RGB uint8 (S, S, 3) → float32 (3, S, S), resized and normalised.

Training-time validation, evaluation, batch prediction and the service all call `preprocess`, so a model is served with
the input that it was evaluated on: no train/serve skew. Pillow and NumPy only.

Shapes: S pixels a side, channels in RGB order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from lensmith.imaging.decoding import MAX_PIXELS, decode
from lensmith.imaging.value_range import FULL_UINT16, ValueRange

ResizeMode = Literal["crop", "letterbox", "squash"]
Pixels = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32]

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing settings, from an image to model input; stored in the bundle.

    Attributes:
        image_size: S, the side of the square that the model sees, in pixels.
        resize: `crop` (shorter side, centre crop), `letterbox` (whole picture on black), `squash` (aspect ratio lost).
        crop_fraction: share of the shorter side inside the crop, 0 < f ≤ 1; for `crop` only.
        interpolation: resampling filter, always with antialiasing.
        mean: subtracted per channel after scaling to 0..1.
        std: divided by per channel afterwards.
        value_ranges: stored values of black and white by kind (uint16, int16, float32 …) where files do not tell.
    """

    image_size: int
    resize: ResizeMode = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    # Bundles from before this field took 16-bit values for full.
    value_ranges: Mapping[str, ValueRange] = field(default_factory=lambda: {"uint16": FULL_UINT16}, hash=False)


def resize(picture: Image.Image, how: Preprocessing) -> Pixels:
    """An RGB picture → uint8 (S, S, 3), by the resize mode of `how`."""
    size, resample = how.image_size, _RESAMPLE[how.interpolation]
    width, height = picture.size
    if how.resize == "letterbox":
        fitted = ImageOps.pad(picture, (size, size), method=resample, color=(0, 0, 0))
    elif how.resize == "squash":
        fitted = picture.resize((size, size), resample)
    else:
        # Cropping in the source and resampling once equals resize-then-crop, without resampling discarded pixels.
        side = min(width, height) * how.crop_fraction
        left, top = (width - side) / 2, (height - side) / 2
        fitted = picture.resize((size, size), resample, box=(left, top, left + side, top + side))
    return np.asarray(fitted)


def normalise(pixels: Pixels, how: Preprocessing) -> Tensor:
    """uint8 (S, S, 3) → float32 (3, S, S), through a look-up table per channel (faster than float arithmetic)."""
    out = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    for channel, table in enumerate(_tables(how.mean, how.std)):
        # A byte is always within the table; with `clip` NumPy needs no buffer, which it would need to raise.
        np.take(table, pixels[:, :, channel], out=out[channel], mode="clip")
    return out


def pixels(encoded: bytes, how: Preprocessing, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Encoded bytes → uint8 (S, S, 3).

    Raises:
        ImageError: as in `decode`.
    """
    return resize(decode(encoded, shortest_side_px(how), max_pixels, how.value_ranges), how)


def preprocess(encoded: bytes, how: Preprocessing, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Encoded bytes → float32 (3, S, S): the image contract in one call.

    Raises:
        ImageError: as in `decode`.
    """
    return normalise(pixels(encoded, how, max_pixels), how)


def shortest_side_px(how: Preprocessing) -> int:
    """Shorter side in pixels below which a scaled decode would lose detail that `how` still uses."""
    return round(how.image_size / how.crop_fraction) if how.resize == "crop" else how.image_size


@lru_cache(maxsize=8)
def _tables(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """float32 (3, 256): what each byte value becomes in each channel."""
    levels = np.arange(256, dtype=np.float64) / 255.0
    return np.stack([(levels - m) / s for m, s in zip(mean, std, strict=True)]).astype(np.float32)
