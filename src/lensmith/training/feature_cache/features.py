"""Feature cache: outputs of the frozen trunk for each image, computed once by the fastest backend.

What is learned from may be rounded (bfloat16, float16 on disk) as far as `exactness` finds it harmless; what validates
is exact: fp32 and float32, as the network is that will be exported.

A view is one way to see an image: 0 unchanged, as the service sees it; v > 0 with the v-th draw of augmentation. While
the trunk is frozen its output is a function of image and view, so E epochs over V views cost V forward passes.

They are cached by the images' contents (`core.row_cache`), so two photos more cost two forward passes a view, and other
names, orders, labels and folders cost none.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import psutil
import timm
import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.core.array_cache import ArrayCache, NotCachedError
from lensmith.core.row_cache import RowKey, rows_by_content
from lensmith.core.text import first_line
from lensmith.core.threads import map_in_order
from lensmith.core.version import installed_versions
from lensmith.data.image_set import ImageSet, Sample
from lensmith.imaging.content_digests import content_digests, distinct_digests
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.dataloading.augment import Augment
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.sampler import Item
from lensmith.training.feature_cache.backends import BATCH, Backend, FrozenTrunk, in_full_precision, parallel_batches
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.feature_cache.split_model import SplitPoint
from lensmith.training.microbatch import memory
from lensmith.training.models.backbone import evaluating

BLOCK = 64
"""Images whose features are written together."""

HALF_MAX = float(np.finfo(np.float16).max)
VERSIONS = ("lensmith", "pillow", "torch", "torchvision", "albumentations", "timm", "openvino", "onnxruntime")
"""Packages that decode, augment and compute; features of other versions are not used."""

_MEMORY_SHARE = 0.25
"""Share of the available memory that features may take when the disk has no room for them."""

Watch = Callable[[int, int], None]
"""Progress callback: images done, of how many. An exception stops the work; finished blocks stay cached."""


class NoFeaturesError(Exception):
    """Features cannot be had here, for lack of room or of a backend; training has to use the images themselves."""


class TooLargeForHalfError(NoFeaturesError):
    """Features that float16 cannot represent, and float32 can."""


@dataclass(frozen=True)
class View:
    """A way to see images.

    Attributes:
        number: 0 for the unchanged image, else the number of the draw.
        augment: augmentation of the views above 0.
        seed: the run's seed.
    """

    number: int
    augment: Augment
    seed: int

    def cache_key(self, settings: TrainSettings) -> dict[str, Any]:
        """All that the view depends on, as plain values."""
        if not self.number:
            return {"number": 0}
        file = settings.transforms or settings.albumentations
        return {
            "number": self.number,
            "seed": self.seed,
            "augment": settings.augment,
            "strength": repr(replace(self.augment, alter=None)),
            "pipeline": hashlib.sha256(file.read_bytes()).hexdigest() if file else None,
        }


class FeatureExtractor(ExitStack):
    """A context that holds a frozen trunk and the backend that runs it.

    Args:
        model: the whole network, on `device`.
        split_point: end of the trunk.
        how: preprocessing, at the size of the images.
        settings: the run's resolved settings.
        device: device of the model.
        store: cache on disk; None: features stay in memory.
        backend: `ENGINE PRECISION`, as an earlier part of the run chose it; None: the fastest.
    """

    def __init__(
        self,
        model: nn.Module,
        split_point: SplitPoint,
        how: Preprocessing,
        settings: TrainSettings,
        device: torch.device,
        store: ArrayCache | None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk = FrozenTrunk(split_point.frozen_trunk(model), how.image_size, device)
        self.split_point, self.how, self.settings, self.store, self.backend = split_point, how, settings, store, backend

    def __enter__(self) -> Self:
        self.enter_context(self.trunk)
        # Dropout right before the trainable tail is in training mode with it.
        self.enter_context(evaluating(self.trunk.module))
        return self

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the trunk: its structure and every number in it."""
        digest = hashlib.sha256(f"{timm.__version__}\n{self.trunk.module!r}".encode())
        for name, tensor in self.trunk.module.state_dict().items():
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"\n{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def choose(self, images: int) -> str:
        """Choose the backend for so many images, unless it is chosen already."""
        if self.backend is None:
            key = {"model": self.settings.model, "at": self.split_point.at}
            try:
                self.backend = self.trunk.fastest_backend(key, images)
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                raise NoFeaturesError(f"no engine has enough memory ({first_line(error)})") from error
        return self.backend

    def features(
        self, images: ImageSet, samples: Sequence[Sample], view: View, watch: Watch, exact: bool = False
    ) -> Features:
        """Features of `samples`, from the cache or computed now.

        Args:
            images: the set of images.
            samples: samples of the set.
            view: how the images are seen.
            watch: progress callback.
            exact: compute in fp32 with the same engine, and store as float32, as a bundle's network computes.

        Raises:
            NoFeaturesError: there is no room for them on disk or in memory, or float16 cannot represent them.
        """
        assert self.backend is not None
        backend = in_full_precision(self.backend) if exact else self.backend
        dtype = np.dtype(np.float32 if exact else np.float16)
        width = int(np.prod(self.split_point.shape))
        contents = content_digests([images.file(sample) for sample in samples])
        if view.number:  # copies of an image have draws of their own
            contents = distinct_digests(contents)
        dataset = ImageDataset(images, samples, self.how, view.augment if view.number else None, view.seed, contents)
        computed = 0

        def compute(rows: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
            """The rows with these numbers, float16 or float32 (N, …) for several at a time."""
            nonlocal computed
            computed = len(rows)
            return self._rows(backend, dtype, dataset, view, watch, rows)

        values = {
            "weights": self.weights,
            "at": self.split_point.at,
            "shape": list(self.split_point.shape),
            "preprocessing": asdict(self.how),
            "view": view.cache_key(self.settings),
            "runner": backend,
            "versions": installed_versions(VERSIONS),
        }
        key = RowKey("features", values, dtype.name)
        # What the same backend computes in fp32 is what it computes here, before the rounding to float16.
        wider = RowKey("features", values, "float32") if not exact and backend == in_full_precision(backend) else None
        seen = f"view {view.number}" if view.number else "unchanged"
        network = f"{self.settings.model} before {self.split_point.at}"
        title = f"{len(samples):,} images of {images.root.name}, {seen}: {network}"
        try:
            if self.store is None:
                raise NotCachedError("the cache is off, or too small for all views")
            flat = rows_by_content(
                self.store, key, contents, [width] * len(samples), compute, title,
                rows_a_block=BLOCK, waiting=lambda: watch(0, len(samples)), wider=wider,
            )  # fmt: skip
        except NotCachedError as error:
            if dtype.itemsize * width * len(samples) > _MEMORY_SHARE * psutil.virtual_memory().available:
                raise NoFeaturesError(str(error)) from error
            try:
                # Filled bit by bit: a list of parts beside their concatenation would take twice the memory.
                flat, end = np.empty(width * len(samples), dtype=dtype), 0
                for part in compute(range(len(samples))):
                    flat[end : end + part.size] = part.reshape(-1)
                    end += part.size
            except MemoryError:
                raise NoFeaturesError("there is no memory for them") from error
        rows = flat.reshape(len(samples), *self.split_point.shape)
        lost = np.flatnonzero(np.isnan(rows.reshape(len(samples), -1)[:, 0]))
        reasons = {int(row): dataset[Item(0, int(row))][-1] or "it was unreadable" for row in lost}
        return Features(rows, reasons, computed)

    def _rows(
        self,
        backend: str,
        dtype: np.dtype[Any],
        dataset: ImageDataset,
        view: View,
        watch: Watch,
        numbers: Sequence[int],
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Compute the rows with these numbers, `dtype` (≤ BATCH, …) at a time, several batches at once."""
        if not numbers:
            return
        done = len(dataset) - len(numbers)
        run, threads = self.trunk.open(backend), parallel_batches(self.trunk.device)
        batches = (numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH))
        compute = partial(self._batch, run, dtype, dataset, view)
        watch(done, len(dataset))
        with closing(map_in_order(compute, batches, threads, 2 * threads + 1, "features")) as computed:
            for features in computed:  # closed, so an exception of `watch` cancels the batches that have not begun
                done += len(features)
                yield features
                watch(done, len(dataset))

    def _batch(
        self, run: Backend, dtype: np.dtype[Any], dataset: ImageDataset, view: View, samples: Sequence[int]
    ) -> np.ndarray[Any, Any]:
        """float16 or float32 (N, …): the features of one batch."""
        how = dataset.how
        batch = dataset.collate([dataset[Item(0, sample, view=view.number)] for sample in samples])
        images = batch.images
        if view.number and len(images):
            images = view.augment.apply(images.permute(0, 3, 1, 2).float().div_(255), batch.factors)
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (how.mean, how.std))
            images = (images - mean).div_(std).contiguous()
        if not len(images):  # one dummy image, as the output's shape is only known from the backend
            images = torch.zeros(1, 3, how.image_size, how.image_size)
        try:
            found = run(images.numpy())
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            raise NoFeaturesError(f"the engine ran out of memory ({first_line(error)})") from error
        if not np.isfinite(found).all():
            raise NoFeaturesError("features are not numbers")
        if dtype == np.float16 and np.abs(found).max(initial=0) > HALF_MAX:
            raise TooLargeForHalfError("float16 cannot represent these features")
        rows = np.full((len(samples), *found.shape[1:]), np.nan, dtype=dtype)
        place_of = {sample: place for place, sample in enumerate(samples)}
        for row, index in enumerate(batch.indices):
            rows[place_of[index]] = found[row]
        return rows
