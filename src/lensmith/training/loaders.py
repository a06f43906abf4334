"""Data loaders of a run's training and validation parts."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from lensmith.imaging.content_digests import content_digests, distinct_digests
from lensmith.training.dataloading.augment import Augment
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader, close_loader, default_loader_workers
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.feature_source import FeatureSource
from lensmith.training.microbatch.distributed import World
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import Phase


class PartLoaders:
    """The loaders of this rank's share of the training and validation images.

    Attributes:
        order: the order of the training images.
        training: augmented training batches.
        validation: validation batches; None: the part is empty.
    """

    def __init__(self, run: Run, augment: Augment, device: torch.device, world: World) -> None:
        settings, images = run.settings, run.images
        training, validation = images.part("train"), images.part("val")
        workers = settings.loader_workers
        if workers is None:
            workers = default_loader_workers(device, world.local_size)
        balance = [sample.label for sample in training] if settings.sampling == "balanced" else None
        self.order = EpochSampler(
            len(training), settings.step_images, settings.seed, balance=balance, rank=world.rank, ranks=world.size
        )
        contents = distinct_digests(content_digests([images.file(sample) for sample in training]))
        dataset = ImageDataset(images, training, run.preprocessing, augment, settings.seed, contents)
        self.training = build_loader(dataset, self.order, workers, device)
        self.validation = None
        if validation:
            dataset = ImageDataset(images, validation, run.preprocessing, None, settings.seed)
            order = EpochSampler(len(validation), 2 * settings.batch_size, None, rank=world.rank, ranks=world.size)
            self.validation = build_loader(dataset, order, workers, device)

    def decode_once(self, phase: Phase, source: FeatureSource) -> None:
        """Let the data-loader workers read pictures that are decoded already, where that pays.

        Raises:
            StoppedError: a signal asked the run to stop.
        """
        for batches in self._each():
            dataset = cast(ImageDataset, batches.dataset)
            found = source.decoded(dataset, phase)
            if found is not None or dataset.decoded is not None:
                dataset.decoded = found
                close_loader(batches)  # its processes have the dataset as it was

    def close(self) -> None:
        """End the data-loader workers."""
        for batches in self._each():
            close_loader(batches)

    def _each(self) -> Iterator[DataLoader[Any]]:
        yield from filter(None, (self.training, self.validation))
