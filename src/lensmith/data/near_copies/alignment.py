"""The difference of two pictures once one is laid over the other: small for a copy, whatever was cut off it.

The box that the second picture shows of the first is refined by Gauss-Newton steps on luma, first on low frequencies,
then on all that both pictures have: a copy of 20 pixels is compared at 20 pixels.

Source: B. D. Lucas and T. Kanade, An Iterative Image Registration Technique with an Application to Stereo Vision, 1981.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lensmith.core.machine import allowed_cores
from lensmith.core.threads import map_in_order
from lensmith.data.near_copies.transforms import SIDE, TURNS, Floats, Ints, cosines, turned

START_FREQUENCIES = 10
"""Frequencies of the first steps, so that a step finds its way from the whole picture."""
CHROMA_FREQUENCIES = 8
"""Frequencies of chroma that are compared, which JPEG stores at half the size."""
SMOOTHING = 0.4
"""Width (one sigma) of the Gaussian that weighs frequencies, as a share of those that are compared. Without it, waves
along the borders stay that are elsewhere once a picture is cropped."""
AT_ONCE = 128
"""Number of pairs that are aligned together: few enough for the processor's cache."""
NOISE = 4.0
"""Squared grey levels that do not count, of rounding and of the encoder."""
BLOCK, SMALL_BLOCK = 8, 4
"""Sides in pixels of the blocks of a thumbnail that are compared each by itself."""
BORDER = 0.07
"""Share of width and height at each side that is not compared: what a crop cuts changes the waves there."""
WHOLE = np.array([[0, 1, 0, 1]], np.float32)
"""The box of a whole picture."""


class Differences(NamedTuple):
    """How much P pairs of aligned pictures differ, and how much there is to differ in; arrays float32 (P,).

    Attributes:
        squared: mean squared difference in grey levels, summed over luma and chroma.
        variance: mean variance of both pictures, summed as `squared`.
        share: `squared` as a share of `variance`: 0 for the same, about 2 for two without anything in common.
        local: mean difference of the blocks that show something, each as a share of its own contrast, 0..1.
        worst: largest difference of a small block, as `local`.
        blocks: number of blocks, of 16, that show something.
    """

    squared: Floats
    variance: Floats
    share: Floats
    local: Floats
    worst: Floats
    blocks: Floats


def differences(thumbnails: Ints, sides: Ints, first: Ints, second: Ints, turn: Ints) -> Differences:
    """The differences of pairs of pictures, of which the first is turned and laid over the second.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3).
        sides: int (N,), the shorter side of each picture in pixels.
        first: int (P,), rows of pictures.
        second: int (P,), rows of those that they are laid over.
        turn: int (P,), turn of the first, 0..7.
    """
    found = np.empty((len(Differences._fields), len(first)), np.float32)
    kept = np.clip(np.minimum(sides[first], sides[second]), 5, SIDE)
    by_turn = (np.flatnonzero(turn == number) for number in range(TURNS))
    chunks = [rows[start : start + AT_ONCE] for rows in by_turn for start in range(0, len(rows), AT_ONCE)]

    def compare(some: Ints) -> Differences:
        """Those of some pairs, int (C,), of one turn."""
        one = turned(thumbnails[first[some]], int(turn[some[0]]))
        return _compare(one, thumbnails[second[some]], kept[some])

    cores = allowed_cores()
    for some, each in zip(chunks, map_in_order(compare, chunks, cores, 2 * cores, "align"), strict=True):
        found[:, some] = each
    return Differences(*found)


def _compare(one: Ints, other: Ints, kept: Ints) -> Differences:
    waves, waves_of_other = (_spectrum(pictures[..., 0], SIDE) for pictures in (one, other))
    low, most = np.minimum(kept, START_FREQUENCIES), START_FREQUENCIES
    boxes = np.repeat(WHOLE, len(one), axis=0)
    boxes = _align(_smoothed(waves[:, :most, :most], low), _smoothed(waves_of_other[:, :most, :most], low), boxes)
    waves, waves_of_other = _smoothed(waves, kept), _smoothed(waves_of_other, kept)
    boxes = _align(waves, waves_of_other, boxes)
    inside = _inside(boxes)
    laid, there = (_laid(each, box)[0] for each, box in zip((waves, waves_of_other), (boxes, WHOLE), strict=True))
    planes = [(laid, there)]
    colour = np.minimum(kept, CHROMA_FREQUENCIES)
    for plane in (1, 2):
        spectra = (_smoothed(_spectrum(each[..., plane], CHROMA_FREQUENCIES), colour) for each in (one, other))
        laid, there = (_laid(each, box)[0] for each, box in zip(spectra, (boxes, WHOLE), strict=True))
        planes.append((laid, there))
    squared, variance = (sum(each) for each in zip(*(_squares(*pair, inside) for pair in planes), strict=True))
    differing, shows = _by_block(planes, inside, BLOCK)
    blocks = shows.sum(axis=(1, 2))
    local = np.sum(differing * shows, axis=(1, 2)) / np.maximum(blocks, 1e-3)
    worst = np.max(np.multiply(*_by_block(planes, inside, SMALL_BLOCK)), axis=(1, 2))
    return Differences(squared, variance, squared / (variance + NOISE), local, worst, blocks)


def _align(waves: Floats, waves_of_other: Floats, boxes: Floats, steps: int = 2) -> Floats:
    """Boxes (P, 4) after Gauss-Newton steps on shift and scale of rows and of columns."""
    places = ((np.arange(SIDE) + 0.5) / SIDE - 0.5).astype(np.float32)
    there = _laid(waves_of_other, WHOLE)[0]
    for _ in range(steps):
        laid, by_row, by_column = _laid(waves, boxes)
        inside = _inside(boxes)
        slopes = np.stack([by_row, by_row * places[:, None], by_column, by_column * places], axis=1)
        slopes = (slopes * inside[:, None]).reshape(len(waves), 4, -1)
        missing = ((there - laid) * inside).reshape(len(waves), -1, 1)
        normal = slopes @ slopes.swapaxes(1, 2)
        damping = 1e-3 * (np.trace(normal, axis1=1, axis2=2) / 4 + 1)
        normal += damping[:, None, None] * np.eye(4, dtype=np.float32)
        change = np.clip(np.linalg.solve(normal, slopes @ missing)[..., 0], -2, 2) / SIDE
        height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
        half_row, half_column = change[:, 1] / 2, change[:, 3] / 2
        moved = (
            (change[:, 0] - half_row) * height,
            (change[:, 0] + half_row) * height,
            (change[:, 2] - half_column) * width,
            (change[:, 2] + half_column) * width,
        )
        boxes = np.clip(boxes + np.stack(moved, axis=1), (-0.1, 0.88, -0.1, 0.88), (0.12, 1.1, 0.12, 1.1))
    return boxes


def _spectrum(planes: Ints, count: int) -> Floats:
    """The lowest `count` frequencies of rows and columns, float32 (P, count, count), of planes (P, SIDE, SIDE)."""
    waves = cosines(count)
    return waves @ planes.astype(np.float32) @ waves.T


def _smoothed(spectra: Floats, kept: Ints) -> Floats:
    """Spectra weighed by a Gaussian, with the frequencies from `kept` on, int (P,), set to 0."""
    orders = np.arange(spectra.shape[1])
    weight = np.exp(-0.5 * (orders / (SMOOTHING * kept[:, None])) ** 2) * (orders < kept[:, None])
    weight = weight.astype(np.float32)
    smoothed: Floats = spectra * weight[:, :, None] * weight[:, None, :]
    return smoothed


def _laid(spectra: Floats, boxes: Floats) -> tuple[Floats, Floats, Floats]:
    """The box (P, 4) of each picture at SIDE × SIDE places, and its slopes by row and by column in levels a pixel.

    Waves are read between pixels as they are, so no detail is lost, as it would be by linear interpolation.
    """
    count = spectra.shape[1]
    orders = np.pi * np.arange(count, dtype=np.float32)
    scale = np.full(count, np.sqrt(2 / SIDE), np.float32)
    scale[0] /= np.sqrt(2)
    centres = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE

    def _waves(low: Floats, high: Floats) -> tuple[Floats, Floats]:
        size = (high - low)[:, None, None]
        angles = orders * (low[:, None, None] + size * centres[:, None])
        return np.cos(angles) * scale, -np.sin(angles) * (scale * orders) * (size / SIDE)

    top, bottom, left, right = boxes.astype(np.float32).T
    rows, row_slopes = _waves(top, bottom)
    columns, column_slopes = _waves(left, right)
    by_column = spectra @ columns.swapaxes(1, 2)
    return rows @ by_column, row_slopes @ by_column, rows @ (spectra @ column_slopes.swapaxes(1, 2))


def _inside(boxes: Floats) -> Floats:
    """Float32 (P, SIDE, SIDE): 1 at places of the boxes that lie in the picture and not at the border, else 0."""
    centres = (np.arange(SIDE) + 0.5) / SIDE
    shown = []
    for low, high in ((boxes[:, :1], boxes[:, 1:2]), (boxes[:, 2:3], boxes[:, 3:])):
        places = low + (high - low) * centres
        here = (places > 0) & (places < 1) & (centres > BORDER) & (centres < 1 - BORDER)
        shown.append(here.astype(np.float32))
    return shown[0][:, :, None] * shown[1][:, None, :]


def _by_block(planes: Sequence[tuple[Floats, Floats]], inside: Floats, side: int) -> tuple[Floats, Floats]:
    """Difference of each block as a share of its contrast, 0..1, and how much it shows, 0..1: float32 (P, B, B)."""
    pooling = np.kron(np.eye(SIDE // side), np.ones(side)).astype(np.float32)

    def _sums(values: Floats) -> Floats:
        found: Floats = pooling @ values @ pooling.T
        return found

    count = _sums(inside)
    weight = np.maximum(count, 1)

    def _variance(values: Floats) -> Floats:
        found: Floats = _sums(values**2 * inside) / weight - (_sums(values * inside) / weight) ** 2
        return np.maximum(found, 0)

    contrast = sum((_variance(one) + _variance(other)) / 2 for one, other in planes)
    difference = sum(_variance(one - other) for one, other in planes)
    return np.clip(difference / (contrast + NOISE), 0, 1), contrast / (contrast + 4 * NOISE) * (count > side**2 / 8)


def _squares(one: Floats, other: Floats, inside: Floats) -> tuple[Floats, Floats]:
    """Mean squared difference and mean variance of planes (P, SIDE, SIDE), where both are there."""
    weight = np.maximum(inside.sum(axis=(1, 2)), 1)
    difference = np.sum((one - other) ** 2 * inside, axis=(1, 2)) / weight
    variances = []
    for plane in (one, other):
        mean = np.sum(plane * inside, axis=(1, 2)) / weight
        variances.append(np.sum((plane - mean[:, None, None]) ** 2 * inside, axis=(1, 2)) / weight)
    return difference, (variances[0] + variances[1]) / 2
