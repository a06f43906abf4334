"""What a frozen prefix makes of each image, computed once by the fastest engine and kept.

A view is one way to see an image: 0 as it is, as the service sees it; v > 0 augmented with the v-th draw. While a
prefix is frozen its output is a function of image and view, so E epochs over V views cost V passes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psutil
import timm
import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.core.cache import Make, NotKeptError, Store
from lensmith.core.text import first_line
from lensmith.core.version import installed_versions
from lensmith.data.scan import ImageSet, Sample, identity
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.dataloading.augment import Augment
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.sampler import Item
from lensmith.training.feature_cache.backends import BATCH, Backend, FrozenTrunk, parallel_batches
from lensmith.training.feature_cache.split_model import SplitPoint
from lensmith.training.microbatch import memory

BLOCK = 64
"""Images that are computed and written together."""


class NoFeaturesError(Exception):
    """There is no room for them, or an engine cannot compute them here; the images have to be used themselves."""


HALF_MAX = float(np.finfo(np.float16).max)
VERSIONS = ("lensmith", "pillow", "torch", "torchvision", "albumentations", "timm", "openvino", "onnxruntime")
"""What decodes, augments and computes."""

_MEMORY_SHARE = 0.25
"""Of the memory available, that features may take which the disk has no room for."""

Watch = Callable[[int, int], None]
"""Told how many images are done, of how many; whatever it raises stops the work, and what is done is kept."""


@dataclass(frozen=True)
class View:
    """How images are seen.

    Attributes:
        number: 0 as they are, else the draw.
        augment: for numbers above 0.
        seed: of the draws.
    """

    number: int
    augment: Augment
    seed: int

    def said(self, settings: TrainSettings) -> dict[str, Any]:
        """All it depends on, as plain values."""
        if not self.number:
            return {"number": 0}
        file = settings.albumentations
        return {
            "number": self.number,
            "seed": self.seed,
            "augment": settings.augment,
            "strength": repr(replace(self.augment, alter=None)),
            "albumentations": hashlib.sha256(file.read_bytes()).hexdigest() if file else None,
        }


@dataclass(frozen=True)
class Features:
    """Features of samples, seen one way.

    Attributes:
        values: float16 (N, …), read-only; a row of NaN where the image cannot be read.
        unreadable: number of such a row → reason.
    """

    values: npt.NDArray[np.float16]
    unreadable: dict[int, str]


class FeatureExtractor:
    """A frozen prefix with what its output depends on; use as a context, which holds engines' graphs.

    Args:
        model: whole, on the device; what lies before the cut is in evaluation mode.
        cut: where it is cut.
        how: preprocessing, at the size of the images.
        settings: of the run.
        device: of the model.
        store: where features are kept.
        runner: `ENGINE PRECISION`, as an earlier part of the run chose; None: the fastest.
    """

    def __init__(
        self,
        model: nn.Module,
        split_point: SplitPoint,
        how: Preprocessing,
        settings: TrainSettings,
        device: torch.device,
        store: Store | None,
        backend: str | None = None,
    ) -> None:
        self.trunk = FrozenTrunk(split_point.frozen_trunk(model), how.image_size, device)
        self.split_point, self.how, self.settings, self.device, self.store, self.backend = (
            split_point, how, settings, device, store, backend,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.trunk.__enter__()
        # Dropout that stands beside what learns is in training mode with it.
        self._modes = {module: module.training for module in self.trunk.module.modules()}
        self.trunk.module.eval()
        return self

    def __exit__(self, *_: object) -> None:
        for module, training in self._modes.items():
            module.training = training
        self.trunk.__exit__()

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the prefix: its structure, and every number in it."""
        digest = hashlib.sha256(f"{timm.__version__}\n{self.trunk.module!r}".encode())
        for name, tensor in self.trunk.module.state_dict().items():
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"\n{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def choose(self, images: int) -> str:
        """The engine for so many images, remembered from here on."""
        if self.backend is None:
            try:
                self.backend = self.trunk.fastest_backend(
                    {"model": self.settings.model, "at": self.split_point.at}, images
                )
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                raise NoFeaturesError(f"no engine has enough memory ({first_line(error)})") from error
        return self.backend

    def features(self, images: ImageSet, samples: Sequence[Sample], view: View, watch: Watch) -> Features:
        """Features of `samples`.

        Raises:
            NoFeaturesError: no room for them on disk or in memory, or float16 cannot hold them.
        """
        assert self.backend is not None
        width = int(np.prod(self.split_point.shape))
        starts = range(0, len(samples), BLOCK)
        lengths = [width * len(samples[start : start + BLOCK]) for start in starts]
        dataset = ImageDataset(images, samples, self.how, view.augment if view.number else None, view.seed)
        make = _BlockMaker(self.trunk, self.backend, dataset, view, self.device, watch)
        key = {
            "weights": self.weights,
            "at": self.split_point.at,
            "shape": list(self.split_point.shape),
            "preprocessing": asdict(self.how),
            "view": view.said(self.settings),
            "files": identity(images, samples),
            "runner": self.backend,
            "versions": installed_versions(VERSIONS),
        }
        seen = "as they are" if not view.number else f"view {view.number}"
        title = (
            f"{len(samples):,} images of {images.root.name}, {seen}: {self.settings.model} before {self.split_point.at}"
        )
        try:
            if self.store is None:
                raise NotKeptError("nothing is to be kept")
            flat = self.store.obtain("features", key, "float16", lengths, make, title, lambda: watch(0, len(samples)))
        except NotKeptError as error:
            if 2 * sum(lengths) > _MEMORY_SHARE * psutil.virtual_memory().available:
                raise NoFeaturesError(str(error)) from error
            flat = _in_memory(make, lengths)
        values = flat.reshape(len(samples), *self.split_point.shape)
        lost = np.flatnonzero(np.isnan(values.reshape(len(samples), -1)[:, 0]))
        return Features(values, {int(row): dataset[Item(0, int(row))][-1] or "it was unreadable" for row in lost})


def _in_memory(make: Make, lengths: Sequence[int]) -> npt.NDArray[np.float16]:
    try:
        flat = np.empty(sum(lengths), dtype=np.float16)
        start = 0
        for length, block in zip(lengths, make(range(len(lengths))), strict=True):
            flat[start : start + length] = block.reshape(-1)
            start += length
    except MemoryError as error:
        raise NoFeaturesError("there is no memory for them") from error
    return flat


class _BlockMaker:
    """Computes blocks of features, several at once, in order."""

    def __init__(
        self, prefix: FrozenTrunk, backend: str, dataset: ImageDataset, view: View, device: torch.device, watch: Watch
    ) -> None:
        self.trunk, self.backend, self.dataset, self.view, self.device, self.watch = (
            prefix, backend, dataset, view, device, watch,
        )  # fmt: skip

    def __call__(self, numbers: Sequence[int]) -> Iterator[npt.NDArray[np.float16]]:
        """The blocks with these numbers, float16 (n, …) each."""
        if not numbers:
            return
        total = len(self.dataset)
        done = total - sum(len(self._samples(number)) for number in numbers)
        count = parallel_batches(self.device)
        with ThreadPoolExecutor(count, thread_name_prefix="features") as pool:
            run = self.trunk.open(self.backend)
            pending: deque[Future[npt.NDArray[np.float16]]] = deque()
            waiting = iter(numbers)
            try:
                for number in waiting:
                    pending.append(pool.submit(self._block, run, number))
                    if len(pending) > 2 * count:
                        break
                while pending:
                    self.watch(done, total)
                    block = pending.popleft().result()
                    for number in waiting:
                        pending.append(pool.submit(self._block, run, number))
                        break
                    done += len(block)
                    yield block
                self.watch(done, total)
            finally:
                for future in pending:
                    future.cancel()

    def _samples(self, number: int) -> range:
        return range(len(self.dataset))[number * BLOCK : (number + 1) * BLOCK]

    def _block(self, run: Backend, number: int) -> npt.NDArray[np.float16]:
        samples = self._samples(number)
        parts = [self._features(run, samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]
        return np.concatenate(parts)

    def _features(self, run: Backend, samples: range) -> npt.NDArray[np.float16]:
        batch = self.dataset.collate([self.dataset[Item(0, sample, view=self.view.number)] for sample in samples])
        place = {index: row for row, index in enumerate(batch.indices)}
        images = batch.images
        if self.view.number and len(images):
            images = self.view.augment.apply(images.permute(0, 3, 1, 2).float().div_(255), batch.factors)
            mean, std = (
                torch.tensor(values).view(1, 3, 1, 1) for values in (self.dataset.how.mean, self.dataset.how.std)
            )
            images = (images - mean).div_(std).contiguous()
        if not len(images):  # the engine says of which shape features are
            size = self.dataset.how.image_size
            images = torch.zeros(1, 3, size, size)
        try:
            found = run(images.numpy())
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            raise NoFeaturesError(f"the engine ran out of memory ({first_line(error)})") from error
        if not np.isfinite(found).all():
            raise NoFeaturesError("features are not numbers")
        if np.abs(found).max(initial=0) > HALF_MAX:
            raise NoFeaturesError("float16 cannot hold these features")
        rows = np.full((len(samples), *found.shape[1:]), np.nan, dtype=np.float16)
        for row, sample in enumerate(samples):
            if sample in place:
                rows[row] = found[place[sample]]
        return rows
