"""Candidates for near copies: the pictures that look most alike under any turn and crop.

Each picture is described by the low frequencies of its thumbnail (a discrete cosine transform of luma and chroma),
scaled so that frequencies which all pictures have count less. There a turn is a swap and a change of signs, and a crop
is one matrix product; so all 8 turns and 6 boxes of a picture are compared with all others by products of matrices, in
blocks of bounded memory. A finer description then ranks the best of each picture.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from lensmith.data.near_copies.transforms import BOXES, SIDE, TURNS, Floats, Ints, cosines, resampling

COARSE, FINE = (8, 3), (14, 5)
"""Highest order of frequencies (of rows and columns together) in luma and chroma: for all pairs, for the best."""
SHORTLIST = 24
"""Number of the pictures most alike by the coarse description that the fine one ranks."""
BLOCK_BYTES = 32 << 20
"""Memory of one block of similarities."""
DESCRIBED_AT_ONCE = 2048
"""Number of pictures that are described together, which bounds memory."""


class Candidates(NamedTuple):
    """Pairs of pictures that look alike, each once.

    Attributes:
        first: int (P,), row of the picture that is turned and cropped.
        second: int (P,), row of the picture that it is compared with.
        turn: int (P,), turn of the first, 0..7.
        box: int (P,), row of `BOXES` that the second shows of the first, before it is turned.
    """

    first: Ints
    second: Ints
    turn: Ints
    box: Ints


class LowFrequencies:
    """The description of pictures by frequencies up to an order, scaled for a set.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3), the set.
        orders: highest order in luma, and in chroma.
    """

    def __init__(self, thumbnails: Ints, orders: tuple[int, int]) -> None:
        luma, chroma = (_frequencies(order) for order in orders)
        self._planes = ((0, luma), (1, chroma), (2, chroma))
        some = thumbnails[:: max(1, len(thumbnails) // DESCRIBED_AT_ONCE)]
        energy = [np.mean(plane**2, axis=0) + 1.0 for plane in self._coefficients(some, BOXES[0])]
        self._scales = [
            (energies + energies[_swap(frequencies)]) ** -0.25
            for energies, (_, frequencies) in zip(energy, self._planes, strict=True)
        ]
        # Chroma of a set in grey is noise, so it counts no more than the frequencies of luma on average.
        most = float(np.mean(self._scales[0]))
        self._scales[1:] = [np.minimum(scale, most) for scale in self._scales[1:]]
        self._swap = np.concatenate(
            [_swap(each) + start for (_, each), start in zip(self._planes, self._starts(), strict=True)]
        )
        both = np.concatenate([each for _, each in self._planes])
        self._upside_down, self._mirrored = ((-1.0) ** both[:, axis] for axis in (0, 1))

    def whole(self, thumbnails: Ints) -> Floats:
        """The whole pictures, float32 (N, D) with unit rows."""
        blocks = range(0, len(thumbnails), DESCRIBED_AT_ONCE)
        return np.concatenate([self._unit(thumbnails[start : start + DESCRIBED_AT_ONCE], 0) for start in blocks])

    def variants(self, thumbnails: Ints) -> Iterator[tuple[int, int, Floats]]:
        """Turn, row of `BOXES`, and float32 (N, D), unit rows, for each turn of each box of a few pictures."""
        for box in range(len(BOXES)):
            plain = self._unit(thumbnails, box)
            for turn in range(TURNS):
                found = plain[:, self._swap] if turn & 4 else plain
                signs: Floats = np.ones(plain.shape[1], np.float32)
                signs = signs * self._upside_down if turn & 2 else signs
                signs = signs * self._mirrored if turn & 1 else signs
                yield turn, box, found * signs.astype(np.float32)

    def _unit(self, thumbnails: Ints, box: int) -> Floats:
        planes = self._coefficients(thumbnails, BOXES[box])
        joined = np.concatenate([plane * scale for plane, scale in zip(planes, self._scales, strict=True)], axis=1)
        length = np.linalg.norm(joined, axis=1, keepdims=True)
        unit: Floats = (joined / np.maximum(length, 1e-6)).astype(np.float32)
        return unit

    def _coefficients(self, thumbnails: Ints, box: Floats) -> list[Floats]:
        """For each plane, float32 (N, frequencies)."""
        top, bottom, left, right = box
        found = []
        for plane, frequencies in self._planes:
            waves = cosines(int(frequencies.max()) + 1)
            rows, columns = waves @ resampling(top, bottom), waves @ resampling(left, right)
            both = rows @ thumbnails[..., plane].astype(np.float32) @ columns.T
            found.append(both[:, frequencies[:, 0], frequencies[:, 1]])
        return found

    def _starts(self) -> list[int]:
        lengths = [len(frequencies) for _, frequencies in self._planes]
        return [sum(lengths[:number]) for number in range(len(lengths))]


def find_candidates(thumbnails: Ints, most: int, watch: Callable[[int, int | None], None]) -> Candidates:
    """The pictures that look most alike each one, as pairs.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3).
        most: number of candidates of each picture.
        watch: called with the number of pictures done and of all.
    """
    count = len(thumbnails)
    listed = min(SHORTLIST, count - 1)
    coarse, fine = LowFrequencies(thumbnails, COARSE), LowFrequencies(thumbnails, FINE)
    columns = np.ascontiguousarray(coarse.whole(thumbnails).T)
    step = int(np.clip(BLOCK_BYTES // (4 * count), 16, 1024))
    pairs = []
    for start in range(0, count, step):
        block = thumbnails[start : start + step]
        rows = np.arange(start, start + len(block))
        best = np.full((len(block), count), -1, np.float32)
        for _, _, variant in coarse.variants(block):
            np.maximum(best, variant @ columns, out=best)
        best[rows - start, rows] = -2  # no picture is its own copy
        shortlist = np.argpartition(-best, listed - 1, axis=1)[:, :listed]
        pairs.append(_ranked(fine, thumbnails, rows, shortlist, min(most, listed)))
        watch(start + len(block), count)
    first, second, turn, box, similarity = (np.concatenate(each) for each in zip(*pairs, strict=True))
    # Each pair once, in the direction in which it is more alike.
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((-similarity, high, low))
    low, high = low[order], high[order]
    once = order[np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])]]
    return Candidates(first[once], second[once], turn[once], box[once])


def _ranked(
    fine: LowFrequencies, thumbnails: Ints, rows: Ints, shortlist: Ints, most: int
) -> tuple[Ints, Ints, Ints, Ints, Floats]:
    """First, second, turn, box and similarity of the best of a shortlist int (B, L), by the fine description."""
    count, listed = shortlist.shape
    others = fine.whole(thumbnails[shortlist.ravel()]).reshape(count, listed, -1)
    best = np.full((count, listed), -2, np.float32)
    turns, boxes = (np.zeros((count, listed), np.int8) for _ in range(2))
    for turn, box, variant in fine.variants(thumbnails[rows]):
        similar = np.einsum("bd,bld->bl", variant, others)
        better = similar > best
        best[better], turns[better], boxes[better] = similar[better], turn, box
    chosen = np.argpartition(-best, most - 1, axis=1)[:, :most]
    at = np.arange(count)[:, None], chosen
    first = np.repeat(rows, most)
    return first, shortlist[at].ravel(), turns[at].ravel(), boxes[at].ravel(), best[at].ravel()


def _frequencies(order: int) -> Ints:
    """Int (F, 2), order of rows and of columns of all frequencies up to an order, without the constant."""
    found = [(row, column) for row in range(order + 1) for column in range(order + 1 - row)]
    return np.array([each for each in found if any(each) and max(each) < SIDE])


def _swap(frequencies: Ints) -> Ints:
    """The position of each frequency with rows and columns swapped."""
    position = {(int(row), int(column)): number for number, (row, column) in enumerate(frequencies)}
    return np.array([position[int(column), int(row)] for row, column in frequencies])
