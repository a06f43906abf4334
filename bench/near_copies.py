"""Near copies: how many of planted copies are found, and how many of the flagged pairs are none.

    python bench/near_copies.py --fashion DIR [--images 6000] [--planted 50] [--json]
    python bench/near_copies.py --large 100000 [--fashion DIR]

Sets: Fashion-MNIST at 28 × 28 (many look-alikes), tiles of the photos that scikit-image, scikit-learn and matplotlib
ship, with and without those of a retina (a smooth dark border, in which tiles look alike), and drawn textures.
Copies of some pictures are planted: resized by 0.3 to 3, JPEG of quality 40 to 95, mirrored, cropped by 5 % of width
and height at a random place, turned by 90, 180 or 270 degrees, and all of it together. A flagged pair of two pictures
of different origin counts as false.
"""

import argparse
import importlib.util
import io
import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lensmith.data.near_copies.decision import find_matches
from lensmith.data.near_copies.search import thumbnail
from lensmith.data.near_copies.transforms import SIDE
from lensmith.imaging.decoding import decode

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


def tiles(side: int, most: int, rng: np.random.Generator, without: str = "") -> list[Image.Image]:
    """Tiles of the photos that do not overlap and show something, `side` pixels wide and high, at most so many."""
    found = []
    for name, picture in photos():
        if name == without:
            continue
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
    files = fashion_files(folder)
    step = max(1, len(files) // count)
    return [Image.open(file).copy() for file in files[::step][:count]]


def fashion_files(folder: Path) -> list[Path]:
    """The files of Fashion-MNIST, those of the training part first."""
    return sorted((folder / "train").rglob("*.png")) + sorted((folder / "test").rglob("*.png"))


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
    if quality is None:
        picture.save(encoded, "PNG")
    else:
        picture.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def measure(name: str, pictures: list[Image.Image], planted: int, rng: np.random.Generator) -> dict[str, Any]:
    """Plant copies of every kind, find them, and print recall by kind and the share of false pairs."""
    origin, kinds = list(range(len(pictures))), [""] * len(pictures)
    encoded = []
    for picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        encoded.append(stream.getvalue())
    for number, row in enumerate(rng.permutation(len(pictures))[: planted * len(KINDS)].tolist()):
        encoded.append(copy_of(pictures[row], KINDS[number % len(KINDS)], rng))
        origin.append(row)
        kinds.append(KINDS[number % len(KINDS)])
    started = time.perf_counter()
    decoded = [decode(each) for each in encoded]
    thumbnails = np.stack([thumbnail(each) for each in decoded])
    sides = np.array([min(each.size) for each in decoded])
    read, searched_cpu = time.perf_counter() - started, time.process_time()
    found = find_matches(thumbnails, sides, lambda done, total: None)
    seconds = time.perf_counter() - started - read
    true = [origin[a] == origin[b] for a, b in zip(found.first, found.second, strict=True)]
    hit = {int(row) for a, b, is_true in zip(found.first, found.second, true, strict=True) if is_true for row in (a, b)}
    copies = [row for row, kind in enumerate(kinds) if kind]
    recall = {kind: float(np.mean([row in hit for row in copies if kinds[row] == kind])) for kind in KINDS}
    cpu = time.process_time() - searched_cpu
    result = {
        "set": name,
        "images": len(encoded),
        "copies": len(copies),
        "recall": float(np.mean([row in hit for row in copies])),
        "by_kind": recall,
        "pairs": len(true),
        "false": true.count(False),
        "false_share": true.count(False) / max(1, len(true)),
        "read_s": read,
        "search_s": seconds,
        "cpu_s": cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "false_pairs": [(int(a), int(b)) for a, b, t in zip(found.first, found.second, true, strict=True) if not t],
    }
    kinds_text = "  ".join(f"{kind} {share:.1%}" for kind, share in recall.items())
    print(
        f"{name}: {len(encoded):,} images, {len(copies)} copies: found {result['recall']:.1%}; false "
        f"{result['false']} of {len(true)} pairs ({result['false_share']:.1%}); {seconds:.1f} s, {cpu:.1f} s of CPU, "
        f"beyond {read:.1f} s of reading; peak {result['peak_mb']:.0f} MB\n    {kinds_text}",
        file=sys.stderr,
        flush=True,
    )
    return result


def large(count: int, folder: Path | None, rng: np.random.Generator) -> dict[str, Any]:
    """Time, memory and recall of so many thumbnails: those of `fashion`, then drawn textures; 1 % are copies."""
    copies = count // 100
    thumbnails = np.empty((count, SIDE, SIDE, 3), np.uint8)
    files = [] if folder is None else fashion_files(folder)
    files = files[: count - copies]
    sides, row = np.full(count, 96), 0
    for row, file in enumerate(files):
        with Image.open(file) as picture:
            thumbnails[row], sides[row] = thumbnail(picture), min(picture.size)
    for row in range(len(files), count - copies):
        thumbnails[row] = thumbnail(textures(1, rng)[0])
    origin = np.arange(count)
    origin[count - copies :] = rng.choice(count - copies, copies, replace=False)
    for row in range(count - copies, count):
        source = origin[row]
        original = (
            Image.open(files[source])
            if source < len(files)
            else Image.fromarray(thumbnails[source], "YCbCr").convert("RGB")
        )
        copied = decode(copy_of(original, KINDS[row % len(KINDS)], rng))
        thumbnails[row], sides[row] = thumbnail(copied), min(copied.size)
    started, cpu = time.perf_counter(), time.process_time()
    found = find_matches(thumbnails, sides, lambda done, total: None)
    result = {
        "set": "large", "images": count, "fashion": len(files), "copies": copies, "pairs": len(found.first),
        "search_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    true = origin[found.first] == origin[found.second]
    hit = np.isin(np.arange(count - copies, count), np.r_[found.first[true], found.second[true]])
    result |= {"recall": float(hit.mean()), "true": int(true.sum())}
    print(
        f"{count:,} thumbnails, {len(files):,} of Fashion-MNIST and the rest drawn: found {result['recall']:.1%} of "
        f"{copies:,} copies, and {len(true) - result['true']:,} pairs of others; {result['search_s']:.0f} s, "
        f"{result['cpu_s']:.0f} s of CPU; peak {result['peak_mb']:.0f} MB",
        file=sys.stderr,
    )
    return result


def main() -> None:
    """Measure the sets that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, help="folder that `lensmith data fetch fashion-mnist` made")
    parser.add_argument("--images", type=int, default=6000, help="number of pictures of Fashion-MNIST")
    parser.add_argument("--planted", type=int, default=50, help="number of copies of each kind")
    parser.add_argument("--large", type=int, help="measure time and memory of so many thumbnails, and no more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the figures and the false pairs as JSON")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    if given.large:
        result = large(given.large, given.fashion, rng)
        print(json.dumps(result, indent=1) if given.json else "")
        return
    sets: dict[str, list[Image.Image]] = (
        {} if given.fashion is None else {"fashion": fashion(given.fashion, given.images)}
    )
    sets["photos, tiles of 96"] = tiles(96, 100_000, rng)
    sets["the same without retina.jpg"] = tiles(96, 100_000, rng, without="retina.jpg")
    sets["photos, tiles of 192"] = tiles(192, 100_000, rng)
    sets["textures"] = textures(1000, rng)
    results = [
        measure(name, pictures, min(given.planted, len(pictures) // len(KINDS)), rng) for name, pictures in sets.items()
    ]
    if given.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
