"""What a copy may have been through: the eight turns and mirror images of a square, and crops of a few percent.

Thumbnails are uint8 (N, SIDE, SIDE, 3): luma and two chroma planes (YCbCr) of the whole picture made square. A box
(top, bottom, left, right), as shares of height and width, is the part of a picture that another one shows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 32
"""Width and height of a thumbnail in pixels."""
Floats = npt.NDArray[Any]
Ints = npt.NDArray[Any]

TURNS = 8
"""Numbers of turns: bit 2 swaps rows and columns first, bit 1 turns rows upside down, bit 0 mirrors columns."""


def turned(pictures: Floats, turn: int) -> Floats:
    """Pictures, uint8 or float32 (P, SIDE, SIDE, …), after a turn, 0..7."""
    if turn & 4:
        pictures = pictures.swapaxes(1, 2)
    if turn & 2:
        pictures = pictures[:, ::-1]
    return pictures[:, :, ::-1] if turn & 1 else pictures


def cosines(count: int) -> Floats:
    """Rows of the orthonormal discrete cosine transform, the constant first: float32 (F, SIDE) of F = `count` rows."""
    rows: Floats = np.cos(np.pi * (np.arange(SIDE) + 0.5) * np.arange(count)[:, None] / SIDE) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def resampling(low: float, high: float) -> Floats:
    """The matrix float32 (SIDE, SIDE) that samples a part of a line, from `low` to `high` as shares, linearly."""
    places = np.clip((low + (high - low) * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5, 0, SIDE - 1)
    before = np.minimum(places.astype(int), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    matrix[np.arange(SIDE), before] = 1 - (places - before)
    matrix[np.arange(SIDE), before + 1] = places - before
    return matrix
