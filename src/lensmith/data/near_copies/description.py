"""Pictures described by the low frequencies of their thumbnails, in which a turn is a swap and a change of signs.

Frequencies of luma and chroma (a discrete cosine transform) are scaled so that those which all pictures of the set have
count less. What a crop or a shift by a few percent does to a description is nearly linear: its tangents.

Source: P. Simard, Y. LeCun, J. Denker, Efficient Pattern Recognition Using a New Transformation Distance, 1993.
"""

import numpy as np

from lensmith.data.near_copies.transforms import SIDE, TURNS, Floats, Ints, cosines, resampling

AT_ONCE = 2048
"""Number of pictures that are described together, which bounds memory."""
WHOLE = (0.0, 1.0, 0.0, 1.0)
"""The box of a whole picture."""
STEP = 0.0125
"""Share of height and width by which a box is moved or widened to find the tangents."""
MOVES = STEP * np.array([(1, 1, 0, 0), (0, 0, 1, 1), (-1, 1, 0, 0), (0, 0, -1, 1)])
"""Float64 (4, 4), changes of a box: moved down and right, made higher and wider."""
DAMPING = 1e-4
"""Squared length that tangents have besides their own, as a share of the picture's: a plain picture has none."""


class LowFrequencies:
    """The description of pictures by frequencies up to an order, scaled for a set.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3), the set.
        orders: highest order (of rows and columns together) in luma, and in chroma.
    """

    def __init__(self, thumbnails: Ints, orders: tuple[int, int]) -> None:
        luma, chroma = (_frequencies(order) for order in orders)
        self._planes = ((0, luma), (1, chroma), (2, chroma))
        some = thumbnails[:: max(1, len(thumbnails) // AT_ONCE)]
        energy = [np.mean(plane**2, axis=0) + 1.0 for plane in self._coefficients(some, WHOLE)]
        scales = [
            (energies + energies[_swap(frequencies)]) ** -0.25
            for energies, (_, frequencies) in zip(energy, self._planes, strict=True)
        ]
        # Chroma of a set in grey is noise, so it counts no more than the frequencies of luma on average.
        most = float(np.mean(scales[0]))
        self._scale = np.concatenate([scales[0], *(np.minimum(scale, most) for scale in scales[1:])])
        starts = np.cumsum([0, len(luma), len(chroma)])
        self._swap = np.concatenate(
            [_swap(each) + start for (_, each), start in zip(self._planes, starts, strict=True)]
        )
        both = np.concatenate([each for _, each in self._planes])
        upside_down, mirrored = ((-1.0) ** both[:, axis] for axis in (0, 1))
        self._signs = [
            ((upside_down if turn & 2 else 1.0) * (mirrored if turn & 1 else np.ones(len(both)))).astype(np.float32)
            for turn in range(TURNS)
        ]

    def whole(self, thumbnails: Ints) -> Floats:
        """The whole pictures, float32 (N, D) with unit rows."""
        blocks = range(0, len(thumbnails), AT_ONCE)
        return np.concatenate([self._with_tangents(thumbnails[start : start + AT_ONCE], ())[0] for start in blocks])

    def with_tangents(self, thumbnails: Ints) -> tuple[Floats, Floats]:
        """The whole pictures, float32 (N, D), and orthonormal tangents of each, float32 (N, 4, D)."""
        unit, tangents = self._with_tangents(thumbnails, tuple(MOVES))
        values, vectors = np.linalg.eigh(tangents @ tangents.swapaxes(1, 2) + DAMPING * np.eye(4, dtype=np.float32))
        turned = (vectors / np.sqrt(values)[:, None]).swapaxes(1, 2)
        return unit, turned @ tangents

    def turned(self, described: Floats) -> Floats:
        """Descriptions, float32 (…, D), after each turn: float32 (TURNS, …, D)."""
        swapped = described[..., self._swap]
        return np.stack([(swapped if turn & 4 else described) * self._signs[turn] for turn in range(TURNS)])

    def _with_tangents(self, thumbnails: Ints, moves: tuple[Floats, ...]) -> tuple[Floats, Floats]:
        whole = self._joined(thumbnails, WHOLE)
        changes = [(self._joined(thumbnails, WHOLE + move) - self._joined(thumbnails, WHOLE - move)) for move in moves]
        length = np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-6)
        tangents = np.array(changes, np.float32).reshape(len(moves), *whole.shape).swapaxes(0, 1)
        return whole / length, tangents / (2 * length[:, None])

    def _joined(self, thumbnails: Ints, box: Floats | tuple[float, ...]) -> Floats:
        joined: Floats = np.concatenate(self._coefficients(thumbnails, box), axis=1) * self._scale
        return joined.astype(np.float32)

    def _coefficients(self, thumbnails: Ints, box: Floats | tuple[float, ...]) -> list[Floats]:
        """For each plane, float32 (N, frequencies)."""
        top, bottom, left, right = box
        found = []
        for plane, frequencies in self._planes:
            waves = cosines(int(frequencies.max()) + 1)
            rows, columns = waves @ resampling(top, bottom), waves @ resampling(left, right)
            both = rows @ thumbnails[..., plane].astype(np.float32) @ columns.T
            found.append(both[:, frequencies[:, 0], frequencies[:, 1]])
        return found


def _frequencies(order: int) -> Ints:
    """Int (F, 2), order of rows and of columns of all frequencies up to an order, without the constant."""
    found = [(row, column) for row in range(order + 1) for column in range(order + 1 - row)]
    return np.array([each for each in found if any(each) and max(each) < SIDE])


def _swap(frequencies: Ints) -> Ints:
    """The position of each frequency with rows and columns swapped."""
    position = {(int(row), int(column)): number for number, (row, column) in enumerate(frequencies)}
    return np.array([position[int(column), int(row)] for row, column in frequencies])
