"""Counts of each model during a rollout, in one process or summed over all: requests, errors, latency histograms.

Counts only grow, so that those of several processes can be added, and two snapshots subtracted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any

from pydantic import TypeAdapter

LEAST_MS, STEP, BUCKETS = 0.5, 1.05, 260
"""Histogram buckets of latencies grow by 5 %, from half a millisecond to beyond two minutes."""
MOST_CLASSES = 100
"""Classes that are counted separately; the others are counted together, as class -1."""


@dataclass
class ModelCounts:
    """One model's counts during a rollout.

    Attributes:
        answered: requests answered.
        failed: requests that the model should have answered and could not, by its own fault: an exception, or
            probabilities that are not finite. Unusable images and shed load count nowhere.
        latency: bucket → single-image requests, by time from headers to answer.
        work: bucket → images, by time for decoding and inference, without waiting.
        classes: class index of the champion → images answered with that class.
        right: answers that feedback confirmed.
        wrong: answers that feedback corrected.
        known: answers with feedback on images that one of both models learnt from or was chosen on; they count as
            neither right nor wrong.
        compared: images that both models answered, in shadow mode.
        agreed: images of `compared` with the same class from both.
    """

    answered: int = 0
    failed: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    work: Counter[int] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    right: int = 0
    wrong: int = 0
    known: int = 0
    compared: int = 0
    agreed: int = 0

    @property
    def requests(self) -> int:
        """All requests that counted."""
        return self.answered + self.failed

    @property
    def labels(self) -> int:
        """Answers with feedback on images that neither model knows."""
        return self.right + self.wrong

    def add(self, other: ModelCounts) -> None:
        """Add another process's counts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def since(self, earlier: ModelCounts) -> ModelCounts:
        """What was counted after an earlier snapshot."""
        difference = {each.name: getattr(self, each.name) - getattr(earlier, each.name) for each in fields(self)}
        return ModelCounts(**difference)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; zeros are left out."""
        return dict(_ADAPTER.dump_python(self, mode="json", exclude_defaults=True))


_ADAPTER = TypeAdapter(ModelCounts)


def bucket_of(milliseconds: float) -> int:
    """The histogram bucket of a latency."""
    if milliseconds <= LEAST_MS:
        return 0
    return min(BUCKETS, 1 + int(math.log(milliseconds / LEAST_MS) / math.log(STEP)))


def upper_ms(bucket: int) -> float:
    """The longest latency of a bucket, in milliseconds."""
    return LEAST_MS * STEP**bucket


def order_statistic_ms(histogram: Mapping[int, int], rank: float) -> float:
    """The `rank`-th shortest latency of a histogram in milliseconds, accurate to 5 %; NaN without requests.

    Args:
        histogram: bucket → requests.
        rank: position among the latencies, up to their number; rounded up.
    """
    buckets = sorted(histogram)
    passed = list(accumulate(histogram[bucket] for bucket in buckets))
    return upper_ms(buckets[bisect_left(passed, rank)]) if any(passed) else math.nan


def quantile_ms(histogram: Counter[int], share: float) -> float:
    """The latency in milliseconds that this share of requests, 0..1, does not exceed; NaN without requests."""
    return order_statistic_ms(histogram, share * histogram.total())


def class_bucket(class_id: int) -> int:
    """The key under which a class is counted; -1 for those beyond MOST_CLASSES."""
    return class_id if 0 <= class_id < MOST_CLASSES else -1
