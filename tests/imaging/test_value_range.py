"""Value ranges: decided from a whole set, refused where pictures have different ones."""

import numpy as np
import pytest
from PIL import Image

from fixtures.pictures import encoded
from lensmith.imaging.decoding import value_statistics
from lensmith.imaging.value_range import FULL_UINT16, Kind, ValueStatistics, contradiction, decide, mixed


def values(high: float, low: float = 0.0, kind: Kind = "uint16", whole: bool = True) -> ValueStatistics:
    return ValueStatistics(kind, low, high, whole)


def floats(high: float, low: float = 0.0) -> ValueStatistics:
    return ValueStatistics("float32", low, high, whole=False)


@pytest.mark.parametrize(
    ("kind", "low", "high", "whole", "expected"),
    [
        ("uint16", 0, 251, True, (0, 255)),
        ("uint16", 3, 1020, True, (0, 1023)),
        ("uint16", 9, 4095, True, (0, 4095)),
        ("uint16", 0, 16000, True, (0, 16383)),
        ("uint16", 0, 40000, True, (0, 65535)),
        ("uint16", 0, 1, True, (0, 1)),  # a mask
        ("uint16", 7000, 7900, True, (7000, 7900)),  # a thermal camera
        ("uint16", 700, 700, True, (0, 65535)),  # one value says nothing
        ("int16", -1024, 3071, True, (-1024, 3071)),
        ("int16", 0, 4000, True, (0, 4095)),
        ("int16", -30000, 32000, True, (-32768, 32767)),
        ("int16", 0, 30000, True, (0, 32767)),
        ("int8", -100, 120, True, (-128, 127)),
        ("uint32", 0, 60000, True, (0, 65535)),
        ("uint32", 0, 4e9, True, (0, 2**32 - 1)),
        ("uint32", 0, 1e6, True, (0, 1e6)),
        ("int32", 0, 65535, True, (0, 65535)),
        ("float32", 0, 1, False, (0, 1)),
        ("float32", -0.05, 1.08, False, (0, 1)),  # a filter overshoots
        ("float32", 0, 0.02, False, (0, 0.02)),
        ("float32", -1, 1, False, (-1, 1)),
        ("float32", 0, 255, True, (0, 255)),
        ("float32", -9, 263, False, (0, 255)),
        ("float32", 0, 4000, True, (0, 4095)),
        ("float32", 270, 310, False, (270, 310)),  # kelvin
        ("float32", -12, 8000, False, (0, 16383)),
        ("float32", 0, 3e6, False, (0, 3e6)),
    ],
)
def test_the_range_of_a_set(kind: Kind, low: float, high: float, whole: bool, expected: tuple[float, float]) -> None:
    assert decide([ValueStatistics(kind, low, high, whole)]) == {kind: expected}


def test_the_brightest_picture_decides_and_each_kind_has_its_own_range() -> None:
    found = [values(800), values(90), values(3900), floats(0.2), floats(0.97), values(5, 5)]
    assert decide(found) == {"uint16": (0, 4095), "float32": (0, 1)}
    assert decide([]) == {}


def test_a_blank_picture_decides_nothing_beside_others() -> None:
    assert decide([values(3900), values(65535, 65535), values(4000)]) == {"uint16": (0, 4095)}
    assert decide([values(7900, 7000), values(0, 0)]) == {"uint16": (7000, 7900)}
    assert decide([values(1000, 1000), values(4000, 4000)]) == {"uint16": (0, 4095)}  # patches of one value each


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([4095, 4000, 65535, 60000], ["0", "1"]),
        ([1020, 900, 1000, 4095, 3900, 4000], ["0", "1", "2"]),
        ([250, 255, 65535, 65000], ["0", "1"]),
        ([255, 250, 1000, 1023], ["0", "1"]),
        ([65535, 60000, 30000, 20000, 9000, 4000], None),  # exposures
        ([4095, 4000, 3900, 3300, 14000], ["0", "1", "2", "3"]),  # one bright picture would make all others dark
        ([900, 65535, 64000, 60000], None),  # one dark picture
        ([4000, 3000, 4095, 2100], None),
        ([], None),
        ([7], None),
    ],
)
def test_two_groups_of_pictures_are_different_ranges(found: list[float], expected: list[str] | None) -> None:
    groups = mixed({str(number): values(high) for number, high in enumerate(found)})
    assert (sorted(groups[0]) if groups else None) == expected


def test_floats_of_0_to_1_among_those_of_0_to_255_are_named_even_if_there_is_only_one() -> None:
    found = {
        "unit": floats(0.9),
        "a": values(255, kind="float32"),
        "b": floats(240),
        "dark": values(30, kind="float32"),
    }
    groups = mixed(found)
    assert groups is not None
    assert groups[0] == ["unit"]
    assert sorted(groups[1]) == ["a", "b"]


def test_signed_values_among_values_from_0_are_different_ranges() -> None:
    hounsfield = {f"h{number}": values(3000, -1024, "int16") for number in range(3)}
    shifted = {f"s{number}": values(4000, 0, "int16") for number in range(3)}
    groups = mixed(hounsfield | shifted)
    assert groups is not None
    assert sorted(groups[0]) == ["h0", "h1", "h2"]
    assert mixed(hounsfield) is None


GREY = np.random.default_rng(0).integers(5, 256, (64, 64))


def with_rows(values: np.ndarray, first: float, last: float) -> np.ndarray:
    """Values with another one in the first six rows, and another in the last six."""
    values = values.copy()
    values[:6], values[-6:] = first, last
    return values


@pytest.mark.parametrize(
    ("stored", "low", "high"),
    [
        (with_rows(GREY.astype(np.uint16) * 16, 65535, 65535), 80, 4080),
        (with_rows(GREY.astype(np.uint16) * 64, 65535, 65535), 320, 16320),
        (with_rows((7000 + GREY).astype(np.uint16), 0, 65535), 7005, 7255),  # both ends
        (with_rows((270 + GREY / 8).astype(np.float32), 0, -999), 270.625, 301.875),
        (with_rows(GREY.astype(np.int16) * 16, 32767, 32767), 80, 4080),
        (np.where(GREY > 99, 65535, 0).astype(np.uint16), 0, 65535),  # a mask
        (with_rows((GREY // 64 * 1000).astype(np.uint16), 65535, 65535), 0, 65535),  # too few levels to tell
        (with_rows(GREY.astype(np.uint16) * 257, 0, 65535), 0, 65535),
        (np.minimum(GREY * 400, 65535).astype(np.uint16), 2000, 65535),  # clipped highlights
    ],
)
def test_one_value_far_from_all_others_is_padding(stored: np.ndarray, low: float, high: float) -> None:
    found = value_statistics(encoded(Image.fromarray(stored), "TIFF"))
    assert found is not None
    assert (found.low, found.high) == (low, high)


def test_flat_pictures_show_no_range() -> None:
    assert mixed({"a": values(100, 100), "b": values(100, 100), "c": values(65535), "d": values(60000)}) is None


@pytest.mark.parametrize(
    ("found", "value_range", "fits"),
    [
        (values(4000), (0, 4095), True),
        (values(4096), (0, 4095), False),
        (values(30), (0, 4095), True),
        (values(60), FULL_UINT16, True),
        (floats(1.1), (0, 1), True),
        (floats(200), (0, 1), False),
        (floats(0.8), (0, 255), False),
        (floats(0.5, 0.5), (0, 255), True),
        (floats(270, -9), (0, 255), True),
        (values(1, kind="float32"), (0, 255), True),  # black and nearly black
        (values(3500, -900, "int16"), (-1024, 3071), True),
        (values(30000, -1024, "int16"), (-1024, 3071), False),
        (values(3000, -1024, "int16"), (0, 4095), False),
    ],
)
def test_a_picture_that_cannot_be_of_its_sets_range(
    found: ValueStatistics, value_range: tuple[float, float], fits: bool
) -> None:
    assert (contradiction(found, value_range) is None) is fits
