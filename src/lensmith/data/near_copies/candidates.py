"""Candidates for near copies: the pictures that look most alike under any turn, and under small shifts and crops.

A coarse description of each picture under all 8 turns is compared with that of all others, by products of matrices in
blocks of bounded memory. The best of each picture are ranked by the tangent distance of a finer description: how much
two pictures differ after the small shift and scaling that makes them most alike.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lensmith.data.near_copies.description import LowFrequencies
from lensmith.data.near_copies.transforms import Floats, Ints

COARSE, FINE = (6, 3), (10, 4)
"""Highest orders of frequencies in luma and chroma: for all pairs, for the best."""
SHORTLIST = 96
"""Number of the pictures most alike by the coarse description that the fine one ranks."""
ROWS, COLUMNS = 256, 1024
"""Numbers of pictures that are compared with each other at once, so that similarities stay in the processor's cache."""


class Candidates(NamedTuple):
    """The K pictures that look most like each one of N, the most alike first.

    Attributes:
        other: int (N, K), rows of pictures.
        turn: int (N, K), turn of the first that lays it over the other, 0..7.
        distance: float32 (N, K), tangent distance, 0..4: squared, of unit descriptions.
        far: float32 (N,), tangent distance to the last of a longer list, of `SHORTLIST` pictures.
    """

    other: Ints
    turn: Ints
    distance: Floats
    far: Floats


def find_candidates(thumbnails: Ints, most: int, watch: Callable[[int, int | None], None]) -> Candidates:
    """The pictures that look most alike each one.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3), of two pictures or more.
        most: number of candidates of each picture.
        watch: called with the number of pictures done and of all.
    """
    count = len(thumbnails)
    listed = min(SHORTLIST, count - 1)
    coarse, fine = LowFrequencies(thumbnails, COARSE), LowFrequencies(thumbnails, FINE)
    described, finely = coarse.whole(thumbnails), fine.whole(thumbnails)
    # Each tile is a sample of the whole set, whatever its order, so that the first one tells how high similarities are.
    number = -(-count // COLUMNS)
    tiles = [np.ascontiguousarray(described[start::number].T) for start in range(number)]
    found = []
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        shortlist = _shortlist(coarse.turned(described[rows]), tiles, rows, listed)
        found.append(_ranked(fine, thumbnails[rows], finely, shortlist, min(most, listed)))
        watch(int(rows[-1]) + 1, count)
    return Candidates(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _shortlist(turned: Floats, tiles: list[Floats], rows: Ints, listed: int) -> Ints:
    """Int (B, L), columns of the most similar of each of `rows`, of which float32 (TURNS, B, D) are the descriptions.

    Args:
        turned: descriptions of some pictures, under each turn.
        tiles: descriptions of all, float32 (D, C): the first of tiles has columns 0, T, 2 T, …
        rows: int (B,), the columns of these pictures themselves, which are no copies of their own.
        listed: L, number of columns that are found of each.
    """
    floor = np.full(len(rows), -np.inf, np.float32)
    buffers = np.empty(
        (2, len(rows), tiles[0].shape[1]), np.float32
    )  # new arrays for each product would take twice as long
    pending: list[tuple[Ints, Ints, Floats]] = []
    for number, tile in enumerate(tiles):
        best, similarities = (buffer[: len(rows), : tile.shape[1]] for buffer in buffers)
        np.matmul(turned[0], tile, out=best)
        for one in turned[1:]:
            np.matmul(one, tile, out=similarities)
            np.maximum(best, similarities, out=best)
        own = np.flatnonzero(rows % len(tiles) == number)
        best[own, rows[own] // len(tiles)] = -np.inf
        if number == 0 and tile.shape[1] > listed:
            floor = np.partition(best, -listed, axis=1)[:, -listed]
        row, column = np.nonzero(best >= floor[:, None] if number == 0 else best > floor[:, None])
        pending.append((row, column * len(tiles) + number, best[row, column]))
        if number + 1 == len(tiles) or sum(len(each[0]) for each in pending) > 4 * listed * len(rows):
            row, column, similar = (np.concatenate(each) for each in zip(*pending, strict=True))
            order = np.lexsort((-similar, row))
            row, column, similar = row[order], column[order], similar[order]
            rank = np.arange(len(row)) - np.searchsorted(row, row)
            stays = (rank < listed) & (similar > -np.inf)
            pending = [(row[stays], column[stays], similar[stays])]
            last = rank == listed - 1
            floor[row[last]] = similar[last]
    return pending[0][1].reshape(len(rows), listed)


def _ranked(fine: LowFrequencies, thumbnails: Ints, finely: Floats, shortlist: Ints, most: int) -> Candidates:
    """The candidates of some pictures, of a shortlist int (B, L)."""
    unit, tangents = fine.with_tangents(thumbnails)
    others = finely[shortlist].swapaxes(1, 2)  # (B, D, L)
    best = np.full(shortlist.shape, np.inf, np.float32)
    turns = np.zeros(shortlist.shape, np.int8)
    explained = np.einsum("bkd,bd->bk", tangents, unit)[..., None]  # the same under each turn
    for turn, (one, moved) in enumerate(zip(fine.turned(unit), fine.turned(tangents), strict=True)):
        distance = 2 - 2 * (one[:, None] @ others)[:, 0] - np.sum((moved @ others - explained) ** 2, axis=1)
        better = distance < best
        best[better], turns[better] = distance[better], turn
    order = np.argsort(best, axis=1, kind="stable")[:, :most]
    other, chosen, distance = (np.take_along_axis(each, order, axis=1) for each in (shortlist, turns, best))
    return Candidates(other, chosen, distance, best.max(axis=1))
