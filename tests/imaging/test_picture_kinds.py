"""Forty pictures of every kind and orientation have the pixels of an independent reference, or are refused."""

import numpy as np
import pytest

from fixtures.picture_kinds import KINDS, RANGES, SIDE, pictures, turned
from lensmith.errors import ImageError
from lensmith.imaging.preprocessing import Preprocessing, pixels

COUNT = 40


@pytest.mark.parametrize("name", KINDS)
def test_pictures_in_every_orientation_have_the_pixels_of_the_reference_or_are_refused(name: str) -> None:
    compare(name, range(8))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_so_have_all_others(name: str) -> None:
    compare(name, range(8, COUNT))


def compare(name: str, numbers: range) -> None:
    kind = KINDS[name]
    how = Preprocessing(SIDE, "squash", value_ranges=RANGES[kind.ranges])
    for number in numbers:
        picture, orientation = pictures(COUNT)[number], 1 + number % 8 if kind.turns else 1
        encoded = kind.write(picture, orientation)
        if kind.tolerance is None:
            with pytest.raises(ImageError):
                pixels(encoded, how)
            continue
        found = pixels(encoded, how).astype(int)
        difference = np.abs(found - turned(kind.expected(picture), orientation))
        assert difference.mean() <= kind.tolerance, f"picture {number}, orientation {orientation}"
        assert kind.tolerance > 1 or difference.max() <= 1, f"picture {number}, orientation {orientation}"
