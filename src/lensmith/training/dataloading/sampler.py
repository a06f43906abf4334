"""The order of an epoch, class-balanced where wanted: a pure function of (seed, epoch), so a resume skips ahead."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class Item(NamedTuple):
    """One sample of an epoch.

    Attributes:
        epoch: number of the epoch, 0-based.
        sample: index of the sample in its part.
        copy: number of times that the sample came in this epoch before.
        size: image size in pixels a side; None: the model's own.
        view: 0 for no augmentation, v > 0 for the v-th draw in any epoch; None: a new draw in each epoch.
    """

    epoch: int
    sample: int
    copy: int = 0
    size: int | None = None
    view: int | None = None


class EpochSampler:
    """Batches of items in the order of an epoch; set `epoch`, `skip`, `size` and `views` before iterating.

    An epoch is divided into near-equal batches, so that no tiny last batch spoils BatchNorm's statistics. Each batch is
    divided into near-equal slices, one for each rank; the length and `skip` count whole batches.

    Args:
        length: number of samples in the part, and of draws in an epoch.
        batch_size: most images in a batch.
        seed: the run's seed; None: the order of the samples.
        balance: label of each sample, to draw every class equally often; None: each sample once.
        rank: number of this rank, whose slice of each batch is yielded, 0-based.
        ranks: number of ranks; where a batch has fewer images, some slices are empty.
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
        self._members = self.classes
        self.epoch = 0
        self.skip = 0
        self.size: int | None = None
        self.views: int | None = None  # number of views that epochs and copies take in turns; None: a new one each time

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

    def leave_out(self, samples: Collection[int]) -> None:
        """Draw the classes from their other samples from now on, as these cannot be read; without classes no change."""
        if self._members is not None:
            kept = [members[~np.isin(members, list(samples))] for members in self._members]
            self.classes = [members for members in kept if len(members)]

    def _view(self, copy: int) -> int | None:
        return None if self.views is None else (self.epoch + copy) % self.views

    def _drawn(self, classes: list[Indices], number: int) -> Indices:
        """Index and copy of each sample that the epoch draws from one class, int64 (draws, 2).

        A class's samples come round after round, each round in a new order, across epochs: so two samples of a class
        are drawn equally often, but for one draw, however long a run is.
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
        """A class's samples in the order of one round, int64 (members,)."""
        key = (1 << 127) + ((self.seed or 0) << 32) + turn  # far from the keys of epochs
        return np.random.Generator(np.random.Philox(key=key, counter=number << 64)).permutation(members)
