"""The value ranges of an image set, decided once from its training part; a set that mixes ranges is refused."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from lensmith.core.machine import allowed_cores
from lensmith.core.stats import evenly_spaced
from lensmith.core.text import listed
from lensmith.core.threads import map_in_order
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import DataError, ImageError
from lensmith.imaging.crops import picture_of
from lensmith.imaging.decoding import may_need_value_range, read, value_statistics
from lensmith.imaging.formats import HEAD_BYTES
from lensmith.imaging.value_range import ValueRange, ValueStatistics, decide, far_darker, mixed, number

MOST_FILES = 500
"""Most files of a part whose values are read, at equal distances: a few hundred show the range of all."""

SHOWN_FILES = 3


def decide_ranges(images: ImageSet) -> dict[str, ValueRange]:
    """Black and white of each kind of values in the training part (or the whole set, while unsplit).

    Files whose format tells their range, as 8-bit files do, need none and are not decoded.

    Raises:
        DataError: pictures of one kind have different ranges, or a kind occurs in other parts alone; files are named.
    """
    found: dict[Sample, ValueStatistics] = {}
    for part in images.parts or (None,):
        samples = [sample for sample in images.samples if sample.part == part]
        found |= _statistics(images, samples)
    if problem := describe_mixed(found):
        raise DataError(f"Pictures of one value range were expected in {images.root}.", *problem)
    ranges = ranges_of(found)
    for kind in sorted({each.kind for each in found.values()} - ranges.keys()):
        others = [sample for sample, each in found.items() if each.kind == kind]
        raise DataError(
            f"Training images with {kind} values were expected in {images.root}, as in the other parts.",
            f"Only {listed((sample.path for sample in others), SHOWN_FILES)} have such values, so nothing tells which "
            "is black and which is white.",
            "Save all files in one form, for example as 8-bit PNG.",
        )
    return ranges


def ranges_of(found: Mapping[Sample, ValueStatistics]) -> dict[str, ValueRange]:
    """Black and white of each kind of values, by the training samples alone where there are parts."""
    return decide(each for sample, each in found.items() if sample.part in ("train", None))


def describe_mixed(found: Mapping[Sample, ValueStatistics]) -> tuple[str, str] | None:
    """What arrived and the remedy, where pictures of one kind of values have different ranges; None: they have one."""
    for kind, lower, upper in mixed_files(found):
        levels = {sample.path: each for sample, each in found.items()}
        groups = " and ".join(
            f"{len(paths)} of {number(min(levels[path].low for path in paths))} to "
            f"{number(max(levels[path].high for path in paths))} ({listed(paths, SHOWN_FILES)})"
            for paths in (lower, upper)
        )
        return (
            f"Their {kind} values are of different ranges: {groups}.",
            "Save them all in one range, for example as 8-bit PNG, or leave the files of one range out; "
            "`lensmith data check` names them all.",
        )
    return None


def mixed_files(found: Mapping[Sample, ValueStatistics]) -> Iterable[tuple[str, list[str], list[str]]]:
    """Each kind of values with different ranges, and the files of the darker and of the brighter one."""
    for kind, group in _by_kind(found):
        if groups := mixed(group):
            yield kind, *groups


def darker_files(found: Mapping[Sample, ValueStatistics]) -> list[str]:
    """Files that are much darker than all others of their kind: perhaps of another range, perhaps of night."""
    return [path for _, group in _by_kind(found) if not mixed(group) for path in far_darker(group)]


def _by_kind(found: Mapping[Sample, ValueStatistics]) -> list[tuple[str, dict[str, ValueStatistics]]]:
    kinds: dict[str, dict[str, ValueStatistics]] = defaultdict(dict)
    for sample, each in found.items():
        kinds[each.kind][sample.path] = each
    return sorted(kinds.items())


def _statistics(images: ImageSet, samples: Sequence[Sample]) -> dict[Sample, ValueStatistics]:
    """Statistics of at most MOST_FILES of the samples that need a range; unreadable files have none."""
    cores = allowed_cores()

    def needs(sample: Sample) -> bool:
        with suppress(OSError, ValueError), picture_of(images.file(sample)).open("rb") as file:
            return may_need_value_range(file.read(HEAD_BYTES))
        return False

    def measured(sample: Sample) -> ValueStatistics | None:
        with suppress(ImageError):
            return value_statistics(read(images.file(sample)))
        return None

    needed = map_in_order(needs, samples, cores, 64 * cores, "ranges")
    deep = [sample for sample, need in zip(samples, needed, strict=True) if need]
    some = evenly_spaced(deep, MOST_FILES)
    found = map_in_order(measured, some, cores, 4 * cores, "ranges")
    return {sample: each for sample, each in zip(some, found, strict=True) if each is not None}
