"""Wide tables of labels: a line for each image, and a column for each annotator, as `path,anna,ben,carla`."""

import re
from collections import Counter
from collections.abc import Collection, Sequence

from lensmith.core.labels import canonical_label

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|true|false|yes|no|x", re.IGNORECASE)
"""What cells of measurements and of one column for each class hold, in which no annotator can be seen."""


def annotator_columns(names: Sequence[str], known: Collection[int], rows: Sequence[Sequence[str]]) -> list[int]:
    """Indices of the columns that each hold the labels of one annotator; none where that is not certain.

    It is certain where all other columns with a name and cells, two at least, have different names, and each mostly the
    same words as the others: half of its different labels at least stand in another column. Numbers could be
    measurements.

    Args:
        names: names of the columns.
        known: indices of columns with another meaning, as the path's.
        rows: cells of each line.
    """
    labels: dict[int, set[str]] = {}
    for index in {number for number, name in enumerate(names) if canonical_label(name)} - set(known):
        cells = {canonical_label(row[index]) for row in rows if index < len(row)} - {""}
        if cells:
            labels[index] = cells
    used = Counter(label for each in labels.values() for label in each)
    is_certain = (
        len(labels) > 1
        and len({canonical_label(names[index]).casefold() for index in labels}) == len(labels)
        and not any(_NUMBER.fullmatch(label) for label in used)
        and all(2 * sum(used[label] > 1 for label in each) >= len(each) for each in labels.values())
    )
    return sorted(labels) if is_certain else []
