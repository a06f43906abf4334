"""Decode cache: pictures decoded once and stored, for the price of reading them in later epochs.

It pays where files are large and epochs many; both are measured. Stored pixels are those of `imaging.decoding`, so a
run sees the same bits with the cache and without.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lensmith.core.array_cache import ArrayCache
from lensmith.core.machine import allowed_cores
from lensmith.core.row_cache import RowKey, rows_by_content
from lensmith.core.stats import evenly_spaced
from lensmith.core.threads import map_in_order
from lensmith.core.version import installed_versions
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.content_digests import content_digests
from lensmith.imaging.decoding import decode, decoded_size, read
from lensmith.imaging.preprocessing import Pixels
from lensmith.imaging.value_range import ValueRange

BLOCK = 64
"""Pictures that are written together."""

SAMPLE = 24
"""Pictures that decoding is timed on."""

LEAST_SAVED_S = 5.0
"""Seconds of decoding to be saved, below which the cache is not worth its room on disk."""


class DecodedPictures:
    """Decoded pictures of samples, mapped into memory; pickled as the name of the mapped file.

    Args:
        pixels: uint8 (bytes,), all pictures one after the other, each after a byte that is 0 where decoding failed.
        sizes: int64 (N, 2), width and height of each picture; 0 where the file's header cannot be read.
        shortest_px: shorter side, in pixels, that decoding was asked for.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64], shortest_px: int) -> None:
        self.pixels, self.sizes, self.shortest_px = pixels, sizes, shortest_px
        self.ends = np.cumsum(_lengths(sizes))

    def __getitem__(self, sample: int) -> Image.Image | None:
        width, height = (int(side) for side in self.sizes[sample])
        end = int(self.ends[sample])
        start = end - 3 * width * height
        if not self.pixels[start - 1]:
            return None
        return Image.fromarray(self.pixels[start:end].reshape(height, width, 3))

    def __getstate__(self) -> dict[str, Any]:
        file = getattr(self.pixels, "filename", None)
        return {**self.__dict__, "pixels": self.pixels if file is None else str(file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        file = state["pixels"]
        pixels = np.memmap(file, dtype=np.uint8, mode="r") if isinstance(file, str) else file
        self.__dict__.update({**state, "pixels": pixels})


def is_worthwhile(
    images: ImageSet, samples: Sequence[Sample], shortest_px: int, value_ranges: Mapping[str, ValueRange], epochs: int
) -> bool:
    """Whether the cache saves enough time in so many epochs, estimated by decoding some of the pictures."""
    some = evenly_spaced(samples, SAMPLE)
    encoded = []
    for sample in some:
        with suppress(ImageError):
            encoded.append(read(images.file(sample)))
    started = time.perf_counter()
    for file in encoded:
        _decode(file, shortest_px, value_ranges)
    once_s = (time.perf_counter() - started) / max(1, len(encoded)) * len(samples)
    return (epochs - 1) * once_s > max(LEAST_SAVED_S, once_s)


def load_or_decode(
    images: ImageSet,
    samples: Sequence[Sample],
    shortest_px: int,
    value_ranges: Mapping[str, ValueRange],
    store: ArrayCache,
    watch: Callable[[int, int], None],
) -> DecodedPictures:
    """Pictures of `samples` from the cache, or decoded now on all cores.

    Args:
        images: the set of images.
        samples: samples to decode.
        shortest_px: shorter side in pixels, see `imaging.decoding`.
        value_ranges: black and white by kind of values, of the set.
        store: cache on disk.
        watch: progress callback: pictures done, of how many. An exception stops the work; finished blocks stay cached.

    Raises:
        NotCachedError: the cache has no room for them.
    """
    threads = allowed_cores()
    sizes = np.array(
        list(map_in_order(lambda one: _size(images, one, shortest_px), samples, threads, 8 * BLOCK, "size")),
        dtype=np.int64,
    ).reshape(-1, 2)
    lengths = _lengths(sizes).tolist()

    def picture(number: int) -> npt.NDArray[np.uint8]:
        """Whether decoding worked, and the pixels: uint8 of shape (1 + 3 H W,)."""
        width, height = sizes[number]
        row = np.zeros(1 + 3 * width * height, dtype=np.uint8)
        with suppress(ImageError):
            pixels = _decode(read(images.file(samples[number])), shortest_px, value_ranges) if width else None
            if pixels is not None and pixels.shape == (height, width, 3):
                row[0], row[1:] = 1, pixels.reshape(-1)
        return row

    def decode_rows(numbers: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """The pictures with these numbers, each uint8 of shape (bytes,)."""
        with closing(map_in_order(picture, numbers, threads, 2 * BLOCK, "decode")) as rows:
            for done, row in enumerate(rows):
                if done % BLOCK == 0:
                    watch(len(samples) - len(numbers) + done, len(samples))
                yield row

    contents = content_digests([images.file(sample) for sample in samples])
    key: dict[str, Any] = {
        "shortest_px": shortest_px,
        "value_ranges": {kind: list(ends) for kind, ends in value_ranges.items()},
        "versions": installed_versions(("lensmith", "pillow")),
    }
    title = f"{len(samples):,} pictures of {images.root.name}, shorter side {shortest_px} px or more"
    pixels = rows_by_content(
        store, RowKey("pixels", key, "uint8"), contents, lengths, decode_rows, title, rows_a_block=BLOCK
    )
    return DecodedPictures(pixels, sizes, shortest_px)


def _lengths(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bytes of each picture with the flag before it, int64 (N,)."""
    return np.asarray(1 + 3 * sizes.prod(axis=1), dtype=np.int64)


def _size(images: ImageSet, sample: Sample, shortest_px: int) -> tuple[int, int]:
    """Width and height of the decoded picture; 0, 0 where the file cannot be decoded."""
    with suppress(ImageError):
        return decoded_size(images.file(sample), shortest_px)
    return 0, 0


def _decode(encoded: bytes, shortest_px: int, value_ranges: Mapping[str, ValueRange]) -> Pixels | None:
    with suppress(ImageError):
        return np.asarray(decode(encoded, shortest_px, value_ranges=value_ranges))
    return None
