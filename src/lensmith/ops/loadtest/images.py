"""Images for a load test: encoded files of a folder, or synthetic ones."""

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from lensmith.core.junk import is_below_junk
from lensmith.errors import DataError
from lensmith.imaging.decoding import read

SIDES = (500, 375)
"""Width and height of a synthetic image, in pixels: those of a typical photo of ImageNet."""
MAX_BYTES = 512 << 20
"""All images are in memory; of a larger folder only the first ones in the shuffled order are sent."""

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def read_images(path: Path, seed: int) -> tuple[bytes, ...]:
    """Read one file, or the JPEG and PNG files below a folder, shuffled by `seed`, up to MAX_BYTES.

    Raises:
        DataError: no such file, or an unreadable one.
    """
    if path.is_file():
        return (read(path),)
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not is_below_junk(file.relative_to(path).parts) and file.is_file()
    )
    if not files:
        raise DataError(
            f"A JPEG or PNG file, or a folder of them, was expected at {path}.",
            "There is none." if path.exists() else "Nothing is there.",
            "Name another with --image-files, or leave it out to send synthetic images.",
        )
    random.Random(seed).shuffle(files)
    found: list[bytes] = []
    total = 0
    for file in files:
        encoded = read(file)
        total += len(encoded)
        if found and total > MAX_BYTES:
            break
        found.append(encoded)
    return tuple(found)


def synthetic_images(count: int) -> tuple[bytes, ...]:
    """`count` JPEGs of 500 × 375 pixels with the detail of photos, about 60 kB each.

    They are noise at seven scales, with power that falls with frequency as in natural images; a smooth gradient would
    be decoded faster than any photo.
    """
    return tuple(_synthetic_jpeg(np.random.default_rng((0, number))) for number in range(count))


def _synthetic_jpeg(rng: np.random.Generator) -> bytes:
    width, height = SIDES
    pixels = np.full((height, width, 3), 118.0)
    for octave in range(7):
        across, down = (max(2, side >> octave) for side in SIDES)
        # Mostly brightness and some colour.
        grain = rng.normal(0.0, 1.0, (down, across, 1)) + rng.normal(0.0, 0.35, (down, across, 3))
        enlarged = [
            np.asarray(Image.fromarray(channel.astype(np.float32)).resize(SIDES, Image.Resampling.BICUBIC))
            for channel in np.moveaxis(grain, 2, 0)
        ]
        pixels += 4.0 * 1.5**octave * np.stack(enlarged, axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()
