"""Which pairs of pictures that look alike are copies: those that differ much less than pictures of this set do.

A fixed limit would not do: two trousers of a shop differ less than a photo and its own thumbnail elsewhere. So a
pair's difference is compared with the level of both pictures, which is how much each one differs from others that look
like it. Pictures that show little must agree better: one smooth border against black looks like any other.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lensmith.data.near_copies.alignment import differences
from lensmith.data.near_copies.candidates import Candidates, find_candidates
from lensmith.data.near_copies.transforms import Floats, Ints

FIRST, CANDIDATES = 4, 14
"""Numbers of pictures, for each one, that are aligned with it: at first, and where a copy is among them."""
LEVEL_RANK = 10
"""A picture's level is its tangent distance to the candidate of this rank, from 0."""
FAR = 0.15
"""Smallest level as a share of the tangent distance to the last of the shortlist, where more candidates are copies."""
LEAST_LEVEL, UNKNOWN_LEVEL = 0.03, 0.5
"""Smallest level, and that of a picture with fewer candidates than `LEVEL_RANK`, as in a set of a few pictures."""
RATIO = 0.035
"""Largest difference of a copy, as a share of the level."""
LOCAL, WORST = 0.07, 0.4
"""Largest difference of the blocks of a copy on average, and of one small block, where the pictures show enough."""
BLOCKS, ENOUGH = 2.0, 12.0
"""Smallest number of blocks that show something, since a black picture with one light corner is a copy of many; and the
number from which on they are enough. With fewer, both limits are lowered by the square of the share."""
EQUAL, PLAIN = 0.01, 1.0
"""Squared grey levels up to which two pictures are the same, whatever they show, and up to which they show nothing."""


class Matches(NamedTuple):
    """Pairs of near copies.

    Attributes:
        first: int (P,), rows of pictures.
        second: int (P,), rows of their copies.
        similarity: float (P,), 0..1: one less the difference of the aligned pictures.
    """

    first: Ints
    second: Ints
    similarity: Floats


def find_matches(thumbnails: Ints, sides: Ints, watch: Callable[[int, int | None], None]) -> Matches:
    """The pairs of near copies among pictures.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3), luma and chroma of each picture.
        sides: int (N,), the shorter side of each picture in pixels.
        watch: called with the number of pictures done and of all.
    """
    if len(thumbnails) < 2:
        none = np.empty(0, np.int64)
        return Matches(none, none, np.empty(0, np.float32))
    candidates = find_candidates(thumbnails, CANDIDATES, watch)
    level = _levels(candidates)
    tried = np.zeros(candidates.other.shape, bool)
    tried[:, :FIRST] = True
    found = _copies(thumbnails, sides, candidates, level, tried)
    # Where one of the first is a copy there may be more of them.
    more = np.zeros_like(tried)
    more[np.union1d(found.first, found.second), FIRST:] = True
    others = _copies(thumbnails, sides, candidates, level, more)
    return Matches(*(np.concatenate(each) for each in zip(found, others, strict=True)))


def _copies(thumbnails: Ints, sides: Ints, candidates: Candidates, level: Floats, chosen: Ints) -> Matches:
    """The copies among chosen candidates, bool (N, K)."""
    first, rank = np.nonzero(chosen)
    second, turn, distance = (each[first, rank] for each in candidates[:3])
    # Each pair once, in the direction in which it is more alike.
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((distance, high, low))
    low, high = low[order], high[order]
    once = order[np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])][: len(order)]]
    first, second, turn = first[once], second[once], turn[once]
    found = differences(thumbnails, sides, first, second, turn)
    limit = RATIO * np.minimum(level[first], level[second])
    evidence = np.minimum(1, found.blocks / ENOUGH) ** 2
    alike = (
        (found.share < limit)
        & (found.local < LOCAL * evidence)
        & (found.worst < WORST * evidence)
        & (found.blocks >= BLOCKS)
    )
    same = (found.squared < EQUAL) & (found.variance > PLAIN)
    copies = np.flatnonzero(alike | same)
    return Matches(first[copies], second[copies], np.clip(1 - found.share[copies], 0, 1))


def _levels(candidates: Candidates) -> Floats:
    """Float32 (N,): how much each picture differs from others that look like it."""
    known = candidates.distance.shape[1] > LEVEL_RANK
    level = candidates.distance[:, LEVEL_RANK] if known else np.full(len(candidates.distance), UNKNOWN_LEVEL)
    level = np.maximum(level, FAR * candidates.far)
    # Where each picture has many copies, its level is theirs; then that of the tenth part of the set holds.
    held: Floats = np.maximum(level, max(LEAST_LEVEL, float(np.quantile(level, 0.1))))
    return held
