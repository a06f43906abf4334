"""Cross-validation folds: seeded, stratified by class, and group-safe; copies of one content are in one fold.

The unit is what no fold may part: a group, the copies of one content, or one image by itself. Each unit's fold comes
from a hash of the seed and its name, and changes only where a class would be unevenly spread. So the folds of the other
images stay nearly all the same when images are added.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lensmith.core.text import listed
from lensmith.data.copies import contradictions, first_of_equals, without_leaks
from lensmith.data.division import units_of
from lensmith.data.image_set import ImageSet
from lensmith.errors import DataError

LARGE = 0.1
"""Share of a class's images in one fold: a unit with more of them is placed before the small ones, which fill up."""

EXCESS = 1.05
"""The most images in a fold, by the mean of all folds, where a class leaves the choice."""

_MOST_SWEEPS = 100


def assign_folds(images: ImageSet, folds: int, seed: int) -> ImageSet:
    """Assign a fold, 0 to `folds` - 1, to every image that is not of the test part, and the part train.

    Folds that the set brings are used unchanged. Validation images take part like training images. Copies without a
    group become one, with the name of the image that they are copies of.

    Args:
        images: an image set, split or not.
        folds: number of folds, 2 or more.
        seed: seed of the hash.

    Raises:
        DataError: fewer units than folds, a class with a single unit, or folds that the set brings of another number.
    """
    tested = {sample.path for sample in images.part("test")}
    pooled = [replace(sample, part=sample.part if sample.path in tested else "train") for sample in images.samples]
    if tested:
        images = without_leaks(replace(images, samples=tuple(pooled)))
    else:
        images = replace(images, samples=tuple(replace(sample, part="train") for sample in pooled))
    if any(sample.fold is not None for sample in images.samples):
        return _brought(images, folds)
    training = replace(images, samples=images.part("train"))
    first = first_of_equals(training)
    unit_of = {path: unit for unit in units_of(training, first, {}) for path in unit.paths}
    units = [unit_of[sample.path].name for sample in training.samples]
    _require_units(training, units, folds)
    fold_of = dict(
        zip(
            (sample.path for sample in training.samples),
            divide([sample.label for sample in training.samples], units, folds, seed),
            strict=True,
        )
    )
    several = {unit for unit, count in Counter(units).items() if count > 1}
    copied = {sample.path: unit for sample, unit in zip(training.samples, units, strict=True) if unit in several}
    divided = replace(
        images,
        samples=tuple(
            replace(sample, fold=fold_of.get(sample.path), group=sample.group or copied.get(sample.path, ""))
            for sample in images.samples
        ),
    )
    kept = f" The test part of {len(tested):,} images is in no fold." if tested else ""
    note = f"{folds} folds, class by class with seed {seed}: {_sizes_text(divided, folds)} images.{kept}"
    return replace(divided, notes=(*images.notes, note, *_unit_notes(divided, training, first, folds)))


def with_validation_fold(images: ImageSet, fold: int) -> ImageSet:
    """The set in which one fold validates, and the other folds train; the test part stays."""
    samples = (
        sample if sample.fold is None else replace(sample, part="val" if sample.fold == fold else "train")
        for sample in images.samples
    )
    return replace(images, samples=tuple(samples))


def fold_counts(images: ImageSet, folds: int) -> dict[str, tuple[int, ...]]:
    """Class → number of images in each fold."""
    table = {label: [0] * folds for label in images.labels}
    for sample in images.samples:
        if sample.fold is not None:
            table[images.labels[sample.label]][sample.fold] += 1
    return {label: tuple(row) for label, row in table.items()}


def divide(labels: Sequence[int], units: Sequence[str], folds: int, seed: int) -> list[int]:
    """The fold of each image: no unit is parted, and each class is spread as evenly as moves of single units can.

    Large units are placed first, in the order of their sizes, where they spread the classes best. Small ones start in
    the fold of their hash. Then units move, one at a time in the order of their hashes, as long as that lowers the sum
    of squares of the classes' counts, each divided by the class's size. A class of images that are units by themselves
    ends with folds that differ by one image at most. `StratifiedGroupKFold` of scikit-learn places all units in turn;
    there, one more unit changes the folds of many.

    Args:
        labels: class index of each of N images.
        units: name of each image's unit.
        folds: number of folds K.
        seed: seed of the hash.

    Returns:
        N folds, each 0..K-1.
    """
    members: dict[str, Counter[int]] = defaultdict(Counter)
    for label, unit in zip(labels, units, strict=True):
        members[unit][label] += 1
    share = {label: count / folds for label, count in Counter(labels).items()}
    most = max(-(-len(labels) // folds), int(EXCESS * len(labels) / folds))
    counts = {label: [0] * folds for label in share}
    totals = [0] * folds
    fold_of: dict[str, int] = {}
    hashes = {unit: hashlib.sha256(f"{seed}\n{unit}".encode(errors="surrogateescape")).digest() for unit in members}
    order = sorted(members, key=hashes.__getitem__)
    # First choice of each unit, and the fold from which on it looks for another.
    wanted, others = (
        {unit: int.from_bytes(hashes[unit][start : start + 8], "big") % folds for unit in order} for start in (0, 8)
    )

    def put(unit: str, fold: int, sign: int = 1) -> None:
        for label, count in members[unit].items():
            counts[label][fold] += sign * count
            totals[fold] += sign * count
        fold_of[unit] = fold

    def cost(unit: str, fold: int) -> tuple[float, int]:
        """Growth of the sum of squares where a unit comes into a fold, and images beyond the most."""
        spread = sum((2 * counts[label][fold] + count) * count / share[label] for label, count in members[unit].items())
        return round(spread, 9), max(0, totals[fold] + members[unit].total() - most)

    def cheapest(unit: str, first: int) -> int:
        """The fold of the least cost; of equal ones `first`, or the next after it."""
        return min(((first + step) % folds for step in range(folds)), key=lambda fold: cost(unit, fold))

    # In their order, as a set of texts has another one in each process.
    large = [unit for unit in order if any(n > max(1, LARGE * share[label]) for label, n in members[unit].items())]
    for unit in sorted(large, key=lambda unit: -members[unit].total()):  # a stable sort: of equal sizes by hash
        put(unit, cheapest(unit, wanted[unit]))
    for unit in order:
        if unit not in fold_of:
            put(unit, wanted[unit])
    for _ in range(_MOST_SWEEPS):
        moved = False
        for unit in order:
            now = fold_of[unit]
            put(unit, now, -1)
            stays = cost(unit, now)
            # The first better fold in the unit's own order, not the best: so what others do decides less.
            rest = ((others[unit] + step) % folds for step in range(folds))
            put(unit, next((fold for fold in rest if cost(unit, fold) < stays), now))
            moved = moved or fold_of[unit] != now
        if not moved:
            break
    # Spread class by class alone, small classes can meet in some folds and leave another without an image.
    for empty in (fold for fold in range(folds) if not totals[fold]):
        units_in = Counter(fold_of.values())
        spare = [unit for unit in order if units_in[fold_of[unit]] > 1]
        if spare:
            unit = max(spare, key=lambda unit: units_in[fold_of[unit]])
            put(unit, fold_of[unit], -1)
            put(unit, empty)
    return [fold_of[unit] for unit in units]


def _require_units(images: ImageSet, units: Sequence[str], folds: int) -> None:
    """Refuse a class that only one unit has, and more folds than units."""
    by_class: dict[int, set[str]] = defaultdict(set)
    for sample, unit in zip(images.samples, units, strict=True):
        by_class[sample.label].add(unit)
    single = [label for number, label in enumerate(images.labels) if len(by_class[number]) < 2]
    if single:
        raise DataError(
            f"Every class in {images.root} was expected to have images of two groups or more, so that each fold can "
            "validate what the others teach; an image without a group counts as one, and its copies with it.",
            f"There are fewer in: {listed(single, 10)}.",
            "Add images to these classes, or remove them.",
        )
    if (count := len(set(units))) < folds:
        raise DataError(
            f"At least {folds} groups were expected in {images.root}, one for each fold; an image without a group "
            "counts as one.",
            f"There are {count:,}.",
            f"Give a smaller number with --cv, {count} at most, or add images.",
        )


def _brought(images: ImageSet, folds: int) -> ImageSet:
    """The set with the folds that it brings.

    Raises:
        DataError: it has another number of folds.
    """
    found = {sample.fold for sample in images.samples if sample.fold is not None}
    if found != set(range(folds)):
        raise DataError(
            f"The {folds} folds 0 to {folds - 1} were expected in the column fold of the table.",
            f"It has {len(found)}: {listed(map(str, sorted(found)), 12)}.",
            f"Give --cv {len(found)}, or have the folds made anew: remove the column."
            if found == set(range(len(found)))
            else "Number them from 0 on without gaps, or remove the column to have the folds made.",
        )
    note = f"Folds that the table brings: {_sizes_text(images, folds)} images."
    return replace(images, notes=(*images.notes, note))


def _unit_notes(divided: ImageSet, training: ImageSet, first: Mapping[str, str], folds: int) -> list[str]:
    """Notes on groups and copies that stay together, and on classes that not every fold has."""
    notes = []
    if first:
        named = listed((f"{path} is {original}" for path, original in sorted(first.items())), 3)
        notes.append(f"Files with the content of another, which are put into its fold: {len(first):,} ({named}).")
        notes += contradictions(training, first)
    rare = [label for label, row in fold_counts(divided, folds).items() if 0 in row]
    if rare:
        notes.append(f"Some folds hold no image of these classes, which have too few groups: {listed(rare, 10)}.")
    return notes


def _sizes_text(images: ImageSet, folds: int) -> str:
    counts = Counter(sample.fold for sample in images.samples)
    return listed((f"{counts[fold]:,}" for fold in range(folds)), 10)
