"""Division of images into parts: each class by the ratio, each group whole, parts that are given already stay.

A class without groups is divided exactly: its images are sorted by a hash of their paths, and the first so many train.
A class with groups is divided by position: groups are sorted by a hash of their names, and each goes where the middle
of its images lies. So a group's part depends little on what is added: only groups beside a border can move. Where that
misses the ratio, groups are moved one at a time (steepest descent) until no move brings the classes nearer to it.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lensmith.core.disjoint_sets import DisjointSets
from lensmith.data.image_set import PARTS, ImageSet
from lensmith.data.part_names import Part

Ratio = tuple[float, float, float]
"""Shares of train, val and test; they need not sum to 1."""

TOLERANCE = 0.03
"""Share of a class by which its parts may miss the ratio before groups are moved; one image at least."""
_EMPTY = (4.0, 1.0, 1.0)
"""Cost of a class without images in train, val and test, where the ratio wants some; a miss by half the class costs
0.25."""


@dataclass(frozen=True)
class Unit:
    """Images that go into one part together: a group, an image with its copies, or both joined.

    Attributes:
        name: the group's name, or the path of the image; its hash is the unit's place in the order.
        paths: paths of all images.
        counts: class index → number of images; copies of equal content count once, with their original.
        part: the part in which some of its images are already; None: it is free.
    """

    name: str
    paths: tuple[str, ...]
    counts: Mapping[int, int]
    part: Part | None = None

    @property
    def size(self) -> int:
        """Number of images, where copies count once."""
        return sum(self.counts.values())

    @property
    def label(self) -> int:
        """The class that most of its images have; among equals the first."""
        return min(self.counts, key=lambda label: (-self.counts[label], label))


def rank(path: str, seed: int) -> bytes:
    """Sort key of a path in the seeded order of its class: 32 bytes of SHA-256."""
    return hashlib.sha256(f"{seed}\n{path}".encode()).digest()


def units_of(images: ImageSet, first: Mapping[str, str], kept: Mapping[str, Part]) -> list[Unit]:
    """Join images that must not part: those of one group, and copies with their original, even across groups.

    Args:
        images: the set.
        first: path of each copy → path of its original.
        kept: path → part of the images that have one already; of a unit's parts the earliest holds.
    """
    joined = DisjointSets()  # of "path:…" and "group:…"
    for sample in images.samples:
        key, original = f"path:{sample.path}", first.get(sample.path)
        if sample.group:
            joined.join(f"group:{sample.group}", key)
        if original is not None:
            joined.join(f"path:{original}", key)
    members = defaultdict(list)
    for sample in images.samples:
        members[joined.find(f"path:{sample.path}")].append(sample)
    units = []
    for samples in members.values():
        originals = [sample for sample in samples if sample.path not in first]
        parts = [kept[sample.path] for sample in samples if sample.path in kept]
        groups = sorted(sample.group for sample in originals if sample.group)
        units.append(
            Unit(
                name=groups[0] if groups else originals[0].path,
                paths=tuple(sample.path for sample in samples),
                counts=Counter(sample.label for sample in originals),
                part=min(parts, key=PARTS.index) if parts else None,
            )
        )
    return units


def divide(units: Sequence[Unit], ratio: Ratio, seed: int) -> dict[str, Part]:
    """Path → part of every image of the units.

    Args:
        units: the units; each with a part keeps it.
        ratio: shares of train, val and test.
        seed: seed of the order.
    """
    ordered = sorted(units, key=lambda unit: rank(unit.name, seed))
    shares = shares_of(ratio)
    classes: dict[int, list[int]] = defaultdict(list)
    for number, unit in enumerate(ordered):
        classes[unit.label].append(number)
    parts: list[int] = [0] * len(ordered)
    for members in classes.values():
        free = [number for number in members if ordered[number].part is None]
        for number in members:
            if (part := ordered[number].part) is not None:
                parts[number] = PARTS.index(part)
        if len(free) < len(members):
            _extend(ordered, members, free, shares, parts)
        elif all(unit.size == 1 for unit in map(ordered.__getitem__, members)):
            blocks = [index for index, count in enumerate(divide_count(len(members), ratio)) for _ in range(count)]
            for number, index in zip(members, blocks, strict=True):
                parts[number] = index
        else:
            _place(ordered, members, shares, parts)
    if any(unit.size > 1 for unit in units):
        _Repair(ordered, shares, parts).run()
    return {path: PARTS[part] for unit, part in zip(ordered, parts, strict=True) for path in unit.paths}


def divide_count(count: int, ratio: Ratio) -> list[int]:
    """Number of images for each part, out of `count`; each is within one of its exact share.

    What is left after rounding down goes first to training, then to parts that would stay empty, then to the part that
    lost most by rounding.
    """
    exact = [count * share for share in shares_of(ratio)]
    given = [math.floor(share) for share in exact]

    def priority(part: int) -> tuple[bool, bool, Fraction]:
        return part == 0 and given[part] == 0, given[part] == 0, exact[part] - given[part]

    claimants = sorted((part for part in range(3) if exact[part] > given[part]), key=priority, reverse=True)
    for part in claimants[: count - sum(given)]:
        given[part] += 1
    return given


def shares_of(ratio: Ratio) -> list[Fraction]:
    """Exact shares that sum to 1."""
    shares = [Fraction(share).limit_denominator(1_000_000) for share in ratio]
    return [share / sum(shares) for share in shares]


def _place(units: Sequence[Unit], members: Sequence[int], shares: Sequence[Fraction], parts: list[int]) -> None:
    """Put each unit of a class where the middle of its images lies between 0 and the class's number of images."""
    total = sum(units[number].size for number in members)
    borders = (shares[0] * total, (shares[0] + shares[1]) * total)
    before = 0
    for number in members:
        middle = before + Fraction(units[number].size, 2)
        parts[number] = 0 if middle < borders[0] else 1 if middle < borders[1] else 2
        if not shares[parts[number]]:  # at the end of a ratio whose last part is 0
            parts[number] = max(part for part in range(3) if shares[part])
        before += units[number].size


def _extend(
    units: Sequence[Unit], members: Sequence[int], free: Sequence[int], shares: Sequence[Fraction], parts: list[int]
) -> None:
    """Put the new units of a class, one after the other, into the part that has least of what the ratio gives it."""
    total = sum(units[number].size for number in members)
    missing = [share * total for share in shares]
    for number in set(members) - set(free):
        missing[parts[number]] -= units[number].size
    for number in free:
        parts[number] = max(
            (part for part in range(3) if shares[part]), key=lambda part: (missing[part], -part)
        )  # fmt: skip
        missing[parts[number]] -= units[number].size


class _Repair:
    """Moves of single units that bring the classes nearer to the ratio.

    Args:
        units: units in their order.
        shares: shares of the parts.
        parts: part index of each unit, which `run` changes.
    """

    def __init__(self, units: Sequence[Unit], shares: Sequence[Fraction], parts: list[int]) -> None:
        self.units, self.shares, self.parts = units, [float(share) for share in shares], parts
        self.counts: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self.movable: dict[int, list[int]] = defaultdict(list)
        for number, unit in enumerate(units):
            for label, count in unit.counts.items():
                self.counts[label][parts[number]] += count
                if unit.part is None:
                    self.movable[label].append(number)

    def run(self) -> None:
        """Move units until no class that misses the ratio gets nearer by a move."""
        waiting = {label for label in self.counts if self._is_off(label)}
        for _ in range(2 * len(self.units)):  # each move lowers the cost, so it ends; this bounds the time
            if not waiting:
                return
            label = max(waiting, key=lambda label: (self._cost(label, self.counts[label]), -label))
            best = min(
                (
                    (self._change(number, part), number, part)
                    for number in self.movable[label]
                    for part in range(3)
                    if part != self.parts[number] and self.shares[part]
                ),
                default=(0.0, 0, 0),
            )
            if best[0] > -1e-9:
                waiting.discard(label)
                continue
            _, number, part = best
            for touched, count in self.units[number].counts.items():
                self.counts[touched][self.parts[number]] -= count
                self.counts[touched][part] += count
                waiting.discard(touched)
                if self._is_off(touched):
                    waiting.add(touched)
            self.parts[number] = part

    def _is_off(self, label: int) -> bool:
        counts = self.counts[label]
        total = sum(counts)
        return any(
            abs(count - share * total) > max(1, TOLERANCE * total) or (share and not count)
            for count, share in zip(counts, self.shares, strict=True)
        )

    def _cost(self, label: int, counts: Sequence[int]) -> float:
        total = sum(self.counts[label])
        return sum(
            ((count - share * total) / total) ** 2 + (empty if share and not count else 0)
            for count, share, empty in zip(counts, self.shares, _EMPTY, strict=True)
        )

    def _change(self, number: int, part: int) -> float:
        """Change of the cost of all classes if a unit moved to a part."""
        change = 0.0
        for label, count in self.units[number].counts.items():
            now = self.counts[label]
            then = list(now)
            then[self.parts[number]] -= count
            then[part] += count
            change += self._cost(label, then) - self._cost(label, now)
        return change
