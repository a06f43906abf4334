"""Images on their way into the loop.

The order of an epoch is a pure function of (seed, epoch), so a run goes on from a cursor without replaying. All that
the data workers need to know of a sample travels with it, so they live on when the epoch or the image size changes. A
file that
cannot be read never stops a run: its sample arrives without pixels, is named once, and is left out of its batch.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lensmith.core.machine import allowed_cores
from lensmith.data.scan import ImageSet, Sample
from lensmith.errors import ImageError, RunError
from lensmith.imaging.decode import decode, read
from lensmith.imaging.preprocessing import Preprocessing, normalise, resize, shortest_side_px
from lensmith.training.dataloading.augment import FACTORS, Augment
from lensmith.training.dataloading.decode_cache import Decoded
from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.memory import is_out_of_memory, lift_cap

Indices = npt.NDArray[np.int64]

_TELLS_SENDERS = hasattr(signal, "sigwaitinfo")
"""Whether a worker can tell who sent it a signal; macOS cannot."""

_WORKER_LOST = ("Caught MemoryError", "MemoryError: ", "is killed by signal", "exited unexpectedly")
"""What torch says of a worker that ran out of memory, or was killed for it."""


class Item(NamedTuple):
    """One sample of an epoch.

    Attributes:
        epoch: 0-based.
        sample: its index.
        copy: how often it came in this epoch before.
        size: pixels a side to make of it; None: the model's own.
        view: 0 as it is, v > 0 by the v-th draw whatever the epoch; None: drawn anew in each epoch.
    """

    epoch: int
    sample: int
    copy: int = 0
    size: int | None = None
    view: int | None = None


@dataclass(frozen=True)
class Batch:
    """What the loader hands out; unreadable samples are already gone from the tensors.

    Attributes:
        images: uint8 (N, S, S, 3) for training, float32 (N, 3, S, S) for validation; float16 (N, …) features.
        labels: int64 (N,).
        factors: float32 (N, 4) for `Augment.apply`.
        taken: samples that the batch stands for, the unreadable ones among them.
        indices: which samples the rows are.
        unreadable: (path, reason) of those left out.
    """

    images: torch.Tensor
    labels: torch.Tensor
    factors: torch.Tensor
    taken: int
    indices: list[int]
    unreadable: list[tuple[str, str]]

    def pin_memory(self) -> Batch:
        """Called by the loader, so that copies to a GPU need not wait."""
        tensors = (self.images.pin_memory(), self.labels.pin_memory(), self.factors.pin_memory())
        return Batch(*tensors, self.taken, self.indices, self.unreadable)


class Batches(Protocol):
    """A part, batch by batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Images(Dataset[Any]):
    """Samples of one part, decoded on demand.

    Args:
        images: the set that the samples belong to.
        samples: which of them.
        how: preprocessing.
        augment: None for validation, which gets exactly what the service would make of the file.
        seed: of the augmentation.
    """

    def __init__(
        self, images: ImageSet, samples: Sequence[Sample], how: Preprocessing, augment: Augment | None, seed: int
    ) -> None:
        self.images, self.samples, self.how, self.augment, self.seed = images, samples, how, augment, seed
        self.decoded: Decoded | None = None
        """Pictures decoded before, all of them for the size of the phase under way."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: Item) -> tuple[Any, int, Any, int, str]:
        index = item.sample
        sample = self.samples[index]
        how = self.how if item.size is None else replace(self.how, image_size=item.size)
        factors = np.zeros(FACTORS, dtype=np.float32)
        try:
            if self.augment is None:
                picture = self._picture(index, shortest_side_px(how))
                return normalise(resize(picture, how), how), sample.label, factors, index, ""
            augment = self.augment if item.view != 0 else Augment()
            draw = (item.epoch, index, item.copy) if item.view is None else (item.view, index)
            random = augment.draw(self.seed, *draw)
            factors = augment.factors(random)
            picture = self._picture(index, self.shortest_px(how, augment))
            return augment.picture(picture, how, random), sample.label, factors, index, ""
        except ImageError as error:
            return None, sample.label, factors, index, error.arrived

    @staticmethod
    def shortest_px(how: Preprocessing, augment: Augment | None) -> int:
        """Shorter side of the pictures that crops are taken of.

        The smallest crop is the most enlarged; below its own pixels it would be blurred.
        """
        smallest = math.sqrt(augment.area[0]) if augment and augment.area else 1.0
        return math.ceil(shortest_side_px(how) / smallest)

    def _picture(self, index: int, shortest_px: int) -> Image.Image:
        fits = self.decoded is not None and self.decoded.shortest_px == shortest_px
        kept = self.decoded[index] if self.decoded is not None and fits else None
        return decode(read(self.images.file(self.samples[index])), shortest_px) if kept is None else kept

    def collate(self, items: list[tuple[Any, int, Any, int, str]]) -> Batch:
        """Items, of which there may be none, → one batch without the unreadable ones."""
        good = [item for item in items if item[0] is not None]
        bad = [(self.samples[index].path, reason) for pixels, _, _, index, reason in items if pixels is None]
        size = self.how.image_size
        empty = (0, size, size, 3) if self.augment else (0, 3, size, size)
        return Batch(
            images=torch.from_numpy(np.stack([item[0] for item in good])) if good else torch.empty(empty),
            labels=torch.tensor([item[1] for item in good], dtype=torch.int64),
            factors=torch.from_numpy(np.stack([item[2] for item in good])) if good else torch.empty(0, FACTORS),
            taken=len(items),
            indices=[item[3] for item in good],
            unreadable=bad,
        )


class Order:
    """Batches of items in the order of an epoch; set `epoch`, `skip`, `size` and `views` before iterating.

    An epoch is cut into near-equal batches, so that there is no tiny last one for BatchNorm to stumble over. Each batch
    is cut into near-equal slices, one for each of several processes that train together; lengths and `skip` count the
    whole batches.

    Args:
        length: samples of the part, and draws in an epoch.
        batch_size: images in a batch at most.
        seed: of the order; None: as they come.
        balance: the label of each sample, to draw every class equally often; None: each sample once.
        rank: which slice of each batch is wanted.
        ranks: how many slices there are; where a batch has fewer images, some are empty.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None,
        *,
        balance: Sequence[int] | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.length, self.batch_size, self.seed, self.rank, self.ranks = length, batch_size, seed, rank, ranks
        self.classes: list[Indices] | None = None
        if balance is not None:
            labels = np.asarray(balance)
            self.classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.epoch = 0
        self.skip = 0
        self.size: int | None = None
        self.views: int | None = None  # epochs and copies take turns at so many views of each sample; None: no end

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[Item]]:
        drawn = np.stack((np.arange(self.length), np.zeros(self.length, dtype=int)), axis=1)
        if self.classes is not None:
            drawn = np.concatenate([self._drawn(self.classes, number) for number in range(len(self.classes))])
        if self.seed is not None:
            drawn = np.random.Generator(np.random.Philox(key=(self.seed << 32) + self.epoch)).permutation(drawn)
        for batch in np.array_split(drawn, len(self))[self.skip :]:
            own = np.array_split(batch, self.ranks)[self.rank]
            yield [Item(self.epoch, int(index), int(copy), self.size, self._view(int(copy))) for index, copy in own]

    def _view(self, copy: int) -> int | None:
        return None if self.views is None else (self.epoch + copy) % self.views

    def _drawn(self, classes: list[Indices], number: int) -> Indices:
        """int64 (draws, 2): index and copy of what the epoch draws from one class.

        A class's samples come in round after round, each in a new order, on from one epoch to the next: so the draws of
        two samples of a class never differ by more than one, however long a run is.
        """
        members = classes[number]
        # The quotients of neighbouring classes take turns at rounding up, and sum to the epoch's length.
        first, end = ((epoch * self.length + number) // len(classes) for epoch in (self.epoch, self.epoch + 1))
        places = np.arange(first, end)
        rounds = places // len(members)
        orders = {int(turn): self._round(number, members, int(turn)) for turn in np.unique(rounds)}
        indices = [orders[int(turn)][place] for turn, place in zip(rounds, places % len(members), strict=True)]
        copies = rounds - first // len(members)
        return np.stack((np.array(indices, dtype=np.int64), copies), axis=1)

    def _round(self, number: int, members: Indices, turn: int) -> Indices:
        """A class's samples in the order of one round."""
        key = (1 << 127) + ((self.seed or 0) << 32) + turn  # a key of its own: those of epochs stay far below
        return np.random.Generator(np.random.Philox(key=key, counter=number << 64)).permutation(members)


def default_workers(device: torch.device, processes: int = 1) -> int:
    """Data processes that measured well: on a GPU the cores allowed; on a CPU half of them, as it also trains.

    Args:
        device: that trains.
        processes: that train on this machine and share its cores.
    """
    cores = allowed_cores() // processes
    return min(8, cores) if device.type == "cuda" else min(4, cores // 2)


def loader(dataset: Images, order: Order, workers: int, device: torch.device) -> DataLoader[Any]:
    """Batches in the order of `order`, decoded by `workers` processes that live as long as the loader."""
    return _Loader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_obey_the_parent_alone,
        # Each pass draws a seed for the workers. From torch's own stream, a resumed run would draw one more.
        generator=torch.Generator(),
    )


class _Loader(DataLoader[Any]):
    """Says in plain words when its workers fail, and starts them so that no signal but the parent's ends them."""

    def __iter__(self) -> Any:
        try:
            yield from self._begin()
        except (MemoryError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1:]
            if not is_out_of_memory(error) and not any(sign in str(error) for sign in _WORKER_LOST):
                raise
            raise RunError(
                "Batches of decoded images were expected.",
                f"They could not be had ({' '.join(reason) or type(error).__name__}).",
                "Use fewer data processes (--workers 0), smaller batches or images, or a machine with more memory.",
            ) from error

    def _begin(self) -> Any:
        """With Ctrl-C and SIGTERM held back in every thread of the workers', also those that libraries start."""
        if not _TELLS_SENDERS:
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def close(batches: DataLoader[Any]) -> None:
    """End a loader's processes now; else they live as long as a traceback that leads to it, in a notebook for hours."""
    iterator = batches._iterator  # torch offers no public way
    if iterator is not None:
        iterator._shutdown_workers()  # type: ignore[attr-defined]
        batches._iterator = None


def _obey_the_parent_alone(worker: int) -> None:
    """Ctrl-C and SIGTERM often reach the whole process group, and the loop needs its batches up to the next step."""
    lift_cap()
    malloc.as_usual()  # the heap that the parent keeps for its steps would be held here, too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _TELLS_SENDERS:
        threading.Thread(target=_exit_for_the_parent, daemon=True).start()


def _exit_for_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
