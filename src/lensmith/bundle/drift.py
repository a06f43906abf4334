"""Drift scores and out-of-distribution answers: a service's answers against statistics of the validation part.

A bundle has a `Reference`: statistics of its validation part, no pictures. A `DriftWindow` has the last answers of a
service and scores them against the reference, in three ways on one scale:

- classes: the population stability index between both distributions of answers,

      PSI = Σ (p − q) ln(p / q)    over the classes, p their shares in the window, q in the reference

- confidence: the same over bins with a tenth of the reference each, or somewhat more;
- features: the mean over the features of ((mean in the window − mean in the reference) / their deviation)².

The index is the divergence of Jeffreys (1946, "An invariant form for the prior probability in estimation problems"),
and the third is that divergence between two normal distributions of one deviation, averaged over the features. Samples
of one distribution differ as well: in B bins, by (B − 1) (1/N + 1/M) on average, where N is the window's size and M the
reference's (Yurdakul and Naranjo 2020, "Statistical properties of the population stability index"); in each feature,
by 1/N + 1/M. This expected value is subtracted, so that a score without drift is about 0.
"""

import itertools
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = npt.NDArray[np.floating[Any]]

THRESHOLDS = {"classes": 0.2, "confidence": 0.2, "features": 0.1}
"""Scores from which on somebody should look at the pictures. Without drift less than one window in a hundred reaches
one, even with the fewest answers and the smallest reference. Of many features most are unchanged, whatever drifts.
"""
WINDOW = 1000
"""Number of last answers that are scored."""
MIN_ANSWERS = 200
"""Fewer answers are too noisy for a score."""
MIN_IMAGES = 100
"""A reference of fewer images is too noisy for a score."""

ODD_SHARE = 0.01
"""Share of the validation part that counts as out of distribution."""

MAX_GROUPS, MIN_IN_GROUP = 40, 15
"""Rare classes are counted together, so that each group has enough answers."""
PARTS = 10
"""Bins of confidence; fewer for a small reference."""
RESOLUTION = 1000
"""Bins of confidence end at multiples of 1/1000: rounding by different engines must not look like drift."""
MIN_VARIANCE = 0.01
"""Least variance of a feature, as a share of the mean variance: one that was always 0 would count without limit."""


class Reference(BaseModel):
    """Reference statistics of a model's answers on labelled images that it did not learn from; no image's own data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    part: str = Field(description="part of the data: val, or train where there was none; or out-of-fold")
    images: int = Field(ge=1, description="number of images, M")
    classes: tuple[int, ...] = Field(description="number of answers by likeliest class, in the order of the labels")
    confidence_edges: tuple[float, ...] = Field((), description="edges between the bins of confidence, rising")
    confidence: tuple[int, ...] = Field(description="number of answers in each bin; the last one ends at 1")
    low_confidence: float = Field(0.0, description="at most 1 % of the answers were less confident")
    feature_images: int = Field(0, ge=0, description="number of images whose features were computed")
    feature_means: tuple[float, ...] = Field((), description="mean of each feature, the graph's second output")
    feature_variances: tuple[float, ...] = Field((), description="variance of each feature, > 0")
    far: float | None = Field(None, description="at most 1 % of the images lay farther from the means; see drift.md")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.confidence) != len(self.confidence_edges) + 1:
            raise ValueError("there should be one bin of confidence more than edges")
        if list(self.confidence_edges) != sorted(self.confidence_edges):
            raise ValueError("the edges of confidence should rise")
        if min((*self.classes, *self.confidence)) < 0 or {sum(self.classes), sum(self.confidence)} != {self.images}:
            raise ValueError("counts should add up to the images")
        if len(self.feature_means) != len(self.feature_variances) or min(self.feature_variances, default=1.0) <= 0:
            raise ValueError("each feature should have a mean and a variance above 0")
        if bool(self.feature_images) != bool(self.feature_means):
            raise ValueError("features should be of images")
        return self

    @classmethod
    def of(cls, part: str, probabilities: Floats, features: Floats | None = None) -> Self:
        """Reference statistics of a part.

        Args:
            part: name of the part.
            probabilities: float32 (M, C), the bundle's answers.
            features: float32 (K, D), features of the images or of some of them; None if the graph has none.
        """
        confidence = probabilities.max(axis=1).astype(np.float64)
        parts = max(2, min(PARTS, len(confidence) // MIN_IN_GROUP))
        cuts = np.quantile(confidence, np.arange(1, parts) / parts)
        # Rounded down, so that there is an edge below even if all answers are certain.
        edges = sorted({math.floor(each * RESOLUTION) / RESOLUTION for each in np.minimum(cuts, 1 - 1e-9).tolist()})
        bins = np.searchsorted(edges, confidence, side="left")
        found: dict[str, Any] = {}
        if features is not None:
            variances = features.var(axis=0, dtype=np.float64)
            variances = np.maximum(variances, max(MIN_VARIANCE * float(variances.mean()), 1e-12))
            means, variances = _rounded(features.mean(axis=0, dtype=np.float64)), _rounded(variances)
            found = {"feature_images": len(features), "feature_means": means, "feature_variances": variances}
            distances = _distance(features, np.array(means), np.array(variances))
            found["far"] = float(np.quantile(distances, 1 - ODD_SHARE, method="higher"))
        return cls(
            part=part,
            images=len(probabilities),
            classes=tuple(np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]).tolist()),
            confidence_edges=tuple(edges),
            confidence=tuple(np.bincount(bins, minlength=len(edges) + 1).tolist()),
            low_confidence=float(np.quantile(confidence, ODD_SHARE, method="lower")),
            **found,
        )

    def odd(self, confidence: float, features: Floats | None = None) -> bool:
        """Whether an answer is out of distribution.

        That is: its confidence is below that of 99 % of the validation part's answers, or its image is farther from the
        mean features than 99 % of the part's images. Of pictures like those of the validation part about one in a
        hundred is odd, two where there are features.

        Args:
            confidence: probability of the likeliest class, 0..1.
            features: float32 (D,), a row of `Engine.run_with_features`; None: only the confidence counts.
        """
        if not confidence >= self.low_confidence:  # NaN is odd
            return True
        if features is None or self.far is None:
            return False
        return not _distance(features, *self.spread) <= self.far

    @cached_property
    def spread(self) -> tuple[Floats, Floats]:
        """Means and variances of the features, float64 (D,) each; D is 0 where there are none."""
        return np.array(self.feature_means), np.array(self.feature_variances)


class DriftWindow:
    """The last answers of one model, scored for drift against its reference. For one thread at a time.

    Args:
        reference: the model's reference statistics.
        size: number of answers in the window; a new one replaces the oldest.
    """

    def __init__(self, reference: Reference, size: int = WINDOW) -> None:
        self._reference, self._size = reference, size
        self._group_of, groups = _groups(reference.classes)
        self._expected = {"classes": groups, "confidence": reference.confidence}
        self._counts = {name: [0] * len(expected) for name, expected in self._expected.items()}
        self._last: deque[tuple[int, int]] = deque()
        self._means, self._variances = reference.spread
        self._features: npt.NDArray[np.float32] | None = None
        self._described = 0

    def __len__(self) -> int:
        """Number of answers in the window."""
        return len(self._last)

    def note(self, class_id: int, confidence: float, features: Floats | None = None) -> None:
        """Add one answer; the time does not depend on the window's size.

        Args:
            class_id: index of the likeliest class.
            confidence: probability of that class, 0..1.
            features: float32 (D,), where the graph has features.
        """
        classes, bins = self._counts["classes"], self._counts["confidence"]
        if len(self._last) == self._size:
            group, bin_ = self._last.popleft()
            classes[group] -= 1
            bins[bin_] -= 1
        group, bin_ = self._group_of[class_id], bisect_left(self._reference.confidence_edges, confidence)
        self._last.append((group, bin_))
        classes[group] += 1
        bins[bin_] += 1
        if features is not None and features.shape == self._means.shape:
            if self._features is None:
                self._features = np.empty((self._size, len(self._means)), np.float32)
            self._features[self._described % self._size] = features
            self._described += 1

    def scores(self) -> dict[str, float]:
        """`classes`, `confidence` and, where there are features, `features`: ≥ 0 each; see the module for the formula.

        Empty with fewer than MIN_ANSWERS, or against a reference of fewer than MIN_IMAGES.
        """
        if len(self._last) < MIN_ANSWERS or self._reference.images < MIN_IMAGES:
            return {}
        found = {name: stability(self._counts[name], expected) for name, expected in self._expected.items()}
        described = min(self._described, self._size)
        images = self._reference.feature_images
        if self._features is not None and described >= MIN_ANSWERS and images >= MIN_IMAGES:
            shift = _distance(self._features[:described].mean(axis=0), self._means, self._variances)
            found["features"] = max(float(shift) - 1 / described - 1 / images, 0.0)  # NaN stays NaN in this order
        return {name: score for name, score in found.items() if math.isfinite(score)}


def stability(counts: Sequence[int], expected: Sequence[int]) -> float:
    """Population stability index of two counts over the same B bins, less its mean without drift; ≥ 0.

    Half a count is added to each bin, as none may be empty.

    Args:
        counts: B counts in the window.
        expected: B counts in the reference.
    """
    n, m = sum(counts), sum(expected)
    p = (np.asarray(counts, dtype=np.float64) + 0.5) / (n + 0.5 * len(counts))
    q = (np.asarray(expected, dtype=np.float64) + 0.5) / (m + 0.5 * len(counts))
    index = float(((p - q) * np.log(p / q)).sum())
    return max(0.0, index - (len(counts) - 1) * (1 / n + 1 / m))


def _groups(classes: Sequence[int]) -> tuple[list[int], list[int]]:
    """The group of each class, and each group's number of answers in the reference.

    A class with enough answers is a group of its own. The others are distributed in turn, in the order of the labels,
    to as many groups as they can fill, at least one. If they were sorted by their answers, groups would look larger or
    smaller than they are.
    """
    enough = max(MIN_IN_GROUP, math.ceil(sum(classes) / MAX_GROUPS))
    frequent = sum(answers >= enough for answers in classes)
    shared = max(1, sum(answers for answers in classes if answers < enough) // enough)
    alone, in_turn = itertools.count(), itertools.count()
    group_of = [next(alone) if answers >= enough else frequent + next(in_turn) % shared for answers in classes]
    totals = [0] * (max(group_of) + 1)
    for group, answers in zip(group_of, classes, strict=True):
        totals[group] += answers
    return group_of, totals


def _distance(features: Floats, means: Floats, variances: Floats) -> Any:
    """Float (…, D) → (…): mean squared distance from the means, in standard deviations."""
    return ((features - means) ** 2 / variances).mean(axis=-1)


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values.tolist())
