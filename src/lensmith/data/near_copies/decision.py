"""Which pairs of pictures that look alike are copies: those that differ much less than pictures of this set do.

A fixed limit would not do: two trousers of a shop differ less than a photo and its own thumbnail elsewhere. So a
pair's difference is compared with the level of both pictures, which is how much each one differs from its other
candidates.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lensmith.data.near_copies.alignment import differences
from lensmith.data.near_copies.candidates import Candidates, find_candidates
from lensmith.data.near_copies.transforms import Floats, Ints

CANDIDATES = 14
"""Number of pictures, for each one, that are aligned with it."""
LEVEL_RANK = 10
"""A picture's level is its difference from the candidate of this rank, from 0; up to so many may be copies."""
RATIO = 0.09
"""Largest difference of a copy, as a share of the level."""
LOCAL = 0.3
"""Largest difference of the blocks of a copy."""
BLOCKS = 2.0
"""Smallest number of blocks that show something: a black picture with one light corner is a copy of many."""
LEAST_LEVEL, UNKNOWN_LEVEL = 0.03, 0.3
"""Smallest level, and that of a picture with fewer candidates than `LEVEL_RANK`, as in a set of a few pictures."""


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
    pairs = find_candidates(thumbnails, CANDIDATES, watch)
    difference, local, blocks = differences(thumbnails, sides, pairs)
    level = _levels(len(thumbnails), pairs, difference)
    limit = RATIO * np.minimum(level[pairs.first], level[pairs.second])
    copies = np.flatnonzero((difference < limit) & (local < LOCAL) & (blocks >= BLOCKS))
    return Matches(pairs.first[copies], pairs.second[copies], np.clip(1 - difference[copies], 0, 1))


def _levels(count: int, pairs: Candidates, difference: Floats) -> Floats:
    """Float32 (N,): how much each picture differs from others that look like it."""
    owner, both = np.r_[pairs.first, pairs.second], np.r_[difference, difference]
    order = np.lexsort((both, owner))
    owner, both = owner[order], both[order]
    start = np.searchsorted(owner, np.arange(count))
    number = np.searchsorted(owner, np.arange(count), side="right") - start
    level: Floats = both[start + np.minimum(LEVEL_RANK, number - 1)]
    level = np.where(number > LEVEL_RANK, level, np.maximum(level, UNKNOWN_LEVEL))
    # Where each picture has many copies, its level is theirs; then that of the tenth part of the set holds.
    held: Floats = np.maximum(level, max(LEAST_LEVEL, float(np.quantile(level, 0.1))))
    return held
