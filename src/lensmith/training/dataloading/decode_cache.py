"""Pictures decoded once and kept: the same pixels as decoding makes, for the price of reading them.

Worth it where files are large and epochs many; both are measured. What is kept is what `image.decode` returns, so a
run sees the same bits with it and without.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from lensmith.core.cache import Store
from lensmith.core.machine import allowed_cores
from lensmith.data.scan import ImageSet, Sample, identity
from lensmith.errors import ImageError
from lensmith.imaging.decode import decode, decoded_size, read
from lensmith.imaging.preprocessing import Pixels

BLOCK = 64
"""Pictures that are decoded and written together."""

SAMPLE = 24
"""Pictures that decoding is timed on."""

LEAST_SAVED_S = 5.0
"""Decoding that is spared, below which keeping pictures is not worth their place on disk."""


class DecodedPictures:
    """Pictures of samples, mapped into memory; goes to other processes as the name of its file.

    Args:
        pixels: uint8, all pictures one after the other, a byte before each: 0 where it could not be decoded.
        sizes: int64 (N, 2): width and height of each; 0 where its header tells none.
        shortest_px: that they were decoded with.
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


def is_worthwhile(images: ImageSet, samples: Sequence[Sample], shortest_px: int, epochs: int) -> bool:
    """Whether `epochs` passes over decoded pictures would spare enough, by the time that some of them take.

    Args:
        images: the set.
        samples: of it, to be decoded in each pass.
        shortest_px: see `image.decode`.
        epochs: passes.
    """
    some = [samples[number * len(samples) // SAMPLE] for number in range(SAMPLE)] if len(samples) > SAMPLE else samples
    if not some:
        return False
    encoded = [file for sample in some if (file := _encoded(images, sample)) is not None]
    started = time.perf_counter()
    for file in encoded:
        _decode(file, shortest_px)
    once_s = (time.perf_counter() - started) / max(1, len(encoded)) * len(samples)
    return (epochs - 1) * once_s > max(LEAST_SAVED_S, once_s)


def load_or_decode(
    images: ImageSet, samples: Sequence[Sample], shortest_px: int, store: Store, watch: Callable[[int, int], None]
) -> DecodedPictures:
    """Decode `samples` on all cores, or find them kept.

    Args:
        images: the set.
        samples: of it.
        shortest_px: see `image.decode`.
        store: where they are kept.
        watch: told how many are done, of how many; what it raises stops the work, and what is done is kept.

    Raises:
        NotKeptError: no room for them.
    """
    with ThreadPoolExecutor(allowed_cores()) as pool:
        sizes = np.array(list(pool.map(lambda one: _size(images, one, shortest_px), samples)), dtype=np.int64)
    sizes = sizes.reshape(-1, 2)
    blocks = [range(start, min(start + BLOCK, len(samples))) for start in range(0, len(samples), BLOCK)]
    lengths = [int(_lengths(sizes)[block.start : block.stop].sum()) for block in blocks]

    def picture(number: int) -> Pixels:
        width, height = sizes[number]
        made = _decode(_encoded(images, samples[number]), shortest_px) if width else None
        row = np.zeros(1 + 3 * width * height, dtype=np.uint8)
        if made is not None and made.shape == (height, width, 3):
            row[0], row[1:] = 1, made.reshape(-1)
        return row

    def make(numbers: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        with ThreadPoolExecutor(allowed_cores(), thread_name_prefix="decode") as pool:
            pending: deque[list[Future[Pixels]]] = deque()
            for place, number in enumerate(numbers):
                pending.append([pool.submit(picture, one) for one in blocks[number]])
                watch(place * BLOCK, len(numbers) * BLOCK)
                if len(pending) > 2:
                    yield np.concatenate([future.result() for future in pending.popleft()])
            while pending:
                yield np.concatenate([future.result() for future in pending.popleft()])

    key = {"shortest_px": shortest_px, "files": identity(images, samples), "pillow": PIL.__version__}
    title = f"{len(samples):,} pictures of {images.root.name}, shorter side {shortest_px} px or more"
    return DecodedPictures(store.obtain("pixels", key, "uint8", lengths, make, title), sizes, shortest_px)


def _lengths(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bytes of each picture, with the one before it."""
    return np.asarray(1 + 3 * sizes.prod(axis=1), dtype=np.int64)


def _size(images: ImageSet, sample: Sample, shortest_px: int) -> tuple[int, int]:
    """0, 0 where the file cannot be decoded."""
    try:
        return decoded_size(images.file(sample), shortest_px)
    except ImageError:
        return 0, 0


def _encoded(images: ImageSet, sample: Sample) -> bytes | None:
    try:
        return read(images.file(sample))
    except ImageError:
        return None


def _decode(encoded: bytes | None, shortest_px: int) -> Pixels | None:
    try:
        return None if encoded is None else np.asarray(decode(encoded, shortest_px))
    except ImageError:
        return None
