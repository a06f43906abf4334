"""Benchmark of decoding and preprocessing: lensmith against the usual code, on a photo of 12 megapixels.

    python bench/decode.py [--json]

Usual: open, convert, resize the shorter side, centre crop, then float arithmetic. Ours: scaled decode, one resampling,
a look-up table. Both by turns in one process; ratios of the medians.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from lensmith.imaging.preprocessing import Preprocessing, normalise, pixels

HOW = Preprocessing(image_size=224)


def photo() -> bytes:
    """A JPEG of 4000 × 3000 pixels with detail at every scale."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize((4000, 3000), Image.BICUBIC)
    noisy = np.asarray(coarse, dtype=np.int16) + random.normal(0, 8, (3000, 4000, 1)).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def usual_pixels(encoded: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.BICUBIC)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    return np.asarray(picture.crop((left, top, left + 224, top + 224)))


def usual_normalise(image: np.ndarray) -> np.ndarray:
    scaled = image.astype(np.float32) / 255
    return np.ascontiguousarray(((scaled - np.float32(HOW.mean)) / np.float32(HOW.std)).transpose(2, 0, 1))


def medians_ms(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant()
            times[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    encoded = photo()
    image = pixels(encoded, HOW)
    decode = medians_ms({"usual": lambda: usual_pixels(encoded), "ours": lambda: pixels(encoded, HOW)}, 15)
    arithmetic = medians_ms({"usual": lambda: usual_normalise(image), "ours": lambda: normalise(image, HOW)}, 300)
    difference = float(np.abs(usual_normalise(image) - normalise(image, HOW)).max())
    result = {
        "bench": "decode",
        "decode_ms": decode,
        "decode_speedup": round(decode["usual"] / decode["ours"], 2),
        "normalise_ms": arithmetic,
        "normalise_speedup": round(arithmetic["usual"] / arithmetic["ours"], 2),
        "normalise_difference": difference,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"12-megapixel JPEG → uint8   usual {decode['usual']:7.1f} ms   ours {decode['ours']:6.1f} ms   "
        f"{result['decode_speedup']} ×"
    )
    print(
        f"uint8 → float32             usual {arithmetic['usual']:7.3f} ms   ours {arithmetic['ours']:6.3f} ms   "
        f"{result['normalise_speedup']} ×"
    )


if __name__ == "__main__":
    main()
