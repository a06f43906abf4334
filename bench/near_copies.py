"""Near copies: how many of planted copies are found, and how many of the flagged pairs are none.

    python bench/near_copies.py --fashion DIR [--images 6000] [--kinds all] [--keep OUT]

Three sets of pictures: Fashion-MNIST at 28×28 (many look-alikes), tiles of the photos that scikit-image, scikit-learn
and matplotlib ship, and drawn textures. Copies of some pictures are planted: resized by 0.3 to 3, JPEG of quality 40 to
95, mirrored, cropped by 5 % a side's length at a random place, turned by 90, 180 or 270 degrees, and all of it together.
A flagged pair of two pictures of different origin counts as false.
"""

import argparse
import importlib.util
import io
import json
import math
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("resized", "encoded", "mirrored", "cropped", "turned", "all")
PHOTOS = {
    "skimage": (
        "astronaut.png", "motorcycle_left.png", "hubble_deep_field.jpg", "ihc.png", "coffee.png", "retina.jpg",
        "chelsea.png", "grass.png", "gravel.png", "camera.png", "rocket.jpg", "brick.png", "coins.png", "cell.png",
        "moon.png", "page.png", "text.png", "clock_motion.png",
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
    "matplotlib": ("grace_hopper.jpg",),
}  # fmt: skip
"""Package → photos in its wheel."""
FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}


FLAT = 8.0
"""Standard deviation in grey levels below which a tile shows nothing, such as sky: a copy of it is one of many."""


def photos() -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each photo that the installed packages ship."""
    for package, names in PHOTOS.items():
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent / FOLDERS[package] if spec and spec.origin else None
        for name in names:
            if folder and (folder / name).is_file():
                with Image.open(folder / name) as picture:
                    yield name, picture.convert("RGB")


def tiles(side: int, most: int, rng: np.random.Generator) -> list[Image.Image]:
    """Tiles of the photos that do not overlap and show something, `side` pixels wide and high, at most so many."""
    found = []
    for _, picture in photos():
        for left in range(0, picture.width - side + 1, side):
            for top in range(0, picture.height - side + 1, side):
                tile = picture.crop((left, top, left + side, top + side))
                if np.asarray(tile.convert("L")).std() >= FLAT:
                    found.append(tile)
    rng.shuffle(found)  # type: ignore[arg-type]
    return found[:most]


def textures(count: int, rng: np.random.Generator) -> list[Image.Image]:
    """Drawn pictures of 96 × 96: stripes, discs, boxes and filtered noise, in colours."""
    found = []
    for _ in range(count):
        kind, ink = rng.integers(4), lambda: tuple(int(v) for v in rng.integers(0, 256, 3))
        picture = Image.new("RGB", (96, 96), ink())
        draw = ImageDraw.Draw(picture)
        if kind == 0:
            step, slope = int(rng.integers(6, 24)), float(rng.uniform(-1, 1))
            colour = ink()
            for x in range(-96, 192, step):
                draw.line((x, 0, x + 96 * slope, 96), fill=colour, width=int(max(1, step // 3)))
        elif kind == 3:
            noise = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
            picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 6))))
        else:
            for _ in range(int(rng.integers(3, 12))):
                x, y, r = rng.integers(0, 96), rng.integers(0, 96), rng.integers(4, 30)
                box = tuple(int(v) for v in (x - r, y - r, x + r, y + r))
                (draw.ellipse if kind == 1 else draw.rectangle)(box, fill=ink())
        found.append(picture)
    return found


def fashion(folder: Path, count: int) -> list[Image.Image]:
    """Pictures of Fashion-MNIST, 28 × 28 in grey, evenly from a folder that `lensmith data fetch` made."""
    files = sorted((folder / "train").rglob("*.png")) + sorted((folder / "test").rglob("*.png"))
    step = max(1, len(files) // count)
    return [Image.open(file).copy() for file in files[::step][:count]]


def copy_of(picture: Image.Image, kind: str, rng: np.random.Generator) -> bytes:
    """The bytes of a near copy."""
    quality = None
    if kind in ("cropped", "all"):
        width, height = round(0.95 * picture.width), round(0.95 * picture.height)
        left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
        picture = picture.crop((int(left), int(top), int(left) + width, int(top) + height))
    if kind in ("mirrored", "all"):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind in ("turned", "all"):
        turns = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
        picture = picture.transpose(turns[rng.integers(3)])
    if kind in ("resized", "all"):
        factor = math.exp(rng.uniform(math.log(0.3), math.log(3)))
        size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
        picture = picture.resize(size, Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.LANCZOS)
    if kind in ("encoded", "all"):
        quality = int(rng.integers(40, 96))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG") if quality is None else picture.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
