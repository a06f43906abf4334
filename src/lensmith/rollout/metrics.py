"""What is counted of each of the two models while a canary release is under way, in one process or over all.

ModelCounts only grow, so that those of several processes can be added, and two looks at them subtracted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

LEAST_MS, STEP, BUCKETS = 0.5, 1.05, 260
"""Latencies fall into buckets that grow by 5 %, from half a millisecond to beyond two minutes."""
CONFIDENCE_BUCKETS = 20
MOST_CLASSES = 100
"""Classes that are counted one by one; the others are counted merge, as class -1."""


@dataclass
class ModelCounts:
    """One model's part in a canary release.

    Attributes:
        answered: requests that it answered.
        failed: requests that it should have answered and could not, by its own fault: an exception, or answers that are
            no numbers. Unusable images and load that was shed count nowhere.
        latency: bucket → requests of one image, by the time from their headers to their answer.
        work: bucket → images, by the time that decoding and inference took, without waiting.
        classes: the champion's class index → images that were answered so.
        confidence: bucket of 1/20 → images.
        right: answers that feedback confirmed.
        wrong: answers that feedback corrected.
        compared: in shadow mode, images that both have answered.
        agreed: those with the same class.
    """

    answered: int = 0
    failed: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    work: Counter[int] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    confidence: Counter[int] = field(default_factory=Counter)
    right: int = 0
    wrong: int = 0
    compared: int = 0
    agreed: int = 0

    @property
    def requests(self) -> int:
        """All that it was asked."""
        return self.answered + self.failed

    def add(self, other: ModelCounts) -> None:
        """Count what `other` counted, too."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine + theirs)

    def since(self, earlier: ModelCounts) -> ModelCounts:
        """What came after an earlier look at the same counts."""
        return ModelCounts(
            **{each.name: getattr(self, each.name) - getattr(earlier, each.name) for each in fields(self)}
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is 0 is left out."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: {str(key): count for key, count in sorted(value.items())} if isinstance(value, Counter) else value
            for name, value in found.items()
            if value
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """What `as_dict` made.

        Raises:
            ValueError, TypeError, AttributeError: something else.
        """
        made: dict[str, Any] = {}
        for each in fields(cls):
            value = stored.get(each.name, 0)
            if each.default_factory is Counter:
                made[each.name] = Counter({int(key): int(count) for key, count in dict(value or {}).items()})
            else:
                made[each.name] = int(value)
        return cls(**made)


def bucket_of(milliseconds: float) -> int:
    """Which bucket a latency falls into."""
    if milliseconds <= LEAST_MS:
        return 0
    return min(BUCKETS, 1 + int(math.log(milliseconds / LEAST_MS) / math.log(STEP)))


def upper_ms(bucket: int) -> float:
    """The longest latency that falls into a bucket, in milliseconds."""
    return LEAST_MS * STEP**bucket


def quantile_ms(histogram: Mapping[int, int], share: float) -> float:
    """The latency that `share` of the requests do not exceed, to 5 %; NaN without requests."""
    total = sum(histogram.values())
    if total == 0:
        return math.nan
    wanted, passed = share * total, 0
    for bucket in sorted(histogram):
        passed += histogram[bucket]
        if passed >= wanted:
            return upper_ms(bucket)
    raise AssertionError("the shares of all buckets make up the whole")


def class_bucket(class_id: int) -> int:
    """The class as it is counted."""
    return class_id if 0 <= class_id < MOST_CLASSES else -1
