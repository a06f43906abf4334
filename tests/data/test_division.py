"""Division with groups: each in one part, classes near to the ratio, and little that moves when images are added."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lensmith.data.division import Ratio, Unit, divide
from lensmith.data.image_set import PARTS

RATIO: Ratio = (5, 3, 2)


def unit(name: str, *counts: int, part: str | None = None) -> Unit:
    """A group with so many images of class 0, 1, …"""
    paths = tuple(f"{name}/{number}" for number in range(sum(counts)))
    return Unit(name, paths, {label: count for label, count in enumerate(counts) if count}, part)  # type: ignore[arg-type]


def table(units: list[Unit], parts: dict[str, str]) -> dict[int, list[int]]:
    """Class → number of images in train, val and test."""
    found: dict[int, Counter[str]] = {}
    for each in units:
        for label, count in each.counts.items():
            found.setdefault(label, Counter())[parts[each.paths[0]]] += count
    return {label: [row[part] for part in PARTS] for label, row in found.items()}


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=4, max_size=30), st.integers(0, 9))
def test_groups_are_whole_and_no_class_is_without_training(sizes: list[tuple[int, int]], seed: int) -> None:
    units = [unit(f"g{number}", *counts) for number, counts in enumerate(sizes)]
    parts = divide(units, RATIO, seed)
    assert all(len({parts[path] for path in each.paths}) == 1 for each in units)
    assert divide(list(reversed(units)), RATIO, seed) == parts
    assert table(units, parts)[0][0] > 0


def test_many_groups_come_near_to_the_ratio_in_every_class() -> None:
    units = [unit(f"g{number}", number % 7 + 1, (number * 5) % 4) for number in range(200)]
    for row in table(units, divide(units, RATIO, 3)).values():
        for count, share in zip(row, RATIO, strict=True):
            assert abs(count / sum(row) - share / 10) < 0.03


def test_few_large_groups_fill_every_part() -> None:
    units = [unit(f"patient{number}", size) for number, size in enumerate((60, 50, 40, 8, 6, 5))]
    row = table(units, divide(units, RATIO, 0))[0]
    assert all(row)
    assert row[0] >= max(row[1:])


def test_an_added_group_moves_few_others() -> None:
    units = [unit(f"g{number}", number % 5 + 1) for number in range(300)]
    before = divide(units, RATIO, 0)
    after = divide([*units, unit("new", 3)], RATIO, 0)
    assert sum(after[path] != part for path, part in before.items()) <= 10


def test_units_that_have_a_part_keep_it_and_new_ones_fill_what_is_short() -> None:
    kept = [unit(f"old{number}", 1, part="train") for number in range(10)]
    new = [unit(f"new{number}", 2) for number in range(5)]
    parts = divide([*kept, *new], RATIO, 0)
    assert all(parts[each.paths[0]] == "train" for each in kept)
    assert table([*kept, *new], parts)[0] == [10, 6, 4]


def test_a_part_without_a_share_stays_empty() -> None:
    units = [unit(f"g{number}", number % 3 + 1) for number in range(40)]
    assert table(units, divide(units, (8, 2, 0), 0))[0][2] == 0
    assert table(units, divide(units, (8, 0, 2), 0))[0][1] == 0
