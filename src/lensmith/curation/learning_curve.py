"""Learning curve of a linear head on frozen features: what more images of a class would bring.

Heads learnt on a quarter, a half, three quarters and all of the training folds are evaluated on the fold left out;
folds keep groups together, so near copies flatter no figure. Two questions are answered apart, since a class that
grows alone gains in part from those that it is confused with (measured: docs/log.md):

- more images of every class: balanced accuracy. What a mean learnt from n images lacks falls with 1 / n.
- more images of one class: its recall. The error follows a power law of n, with one exponent for all classes.

Source: Hestness et al., Deep Learning Scaling is Predictable, Empirically, 2017, for the power law.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lensmith.core.stats import percentile_interval
from lensmith.curation.discriminant import (
    FeatureRows,
    Floats,
    Ints,
    Moments,
    fit_discriminant,
    moments_by_part,
    stratified_folds,
)

FOLDS, QUARTERS = 4, 4
DRAWS = 200
"""Bootstrap resamples of the groups."""

FEW = 8
"""Size of the smallest class that is evaluated."""

MORE = 20
"""Smallest number of further images that a gain is computed for; large classes take a quarter of what they have."""

_LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class CurvePoint:
    """One point of the learning curve.

    Attributes:
        share: share of the training folds that the head learnt from, 0..1.
        images: mean number of images that it learnt from.
        balanced_accuracy: mean recall of the classes, 0..1.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
    """

    share: float
    images: float
    balanced_accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassNeed:
    """What more images of a class would bring.

    Attributes:
        label: name of the class.
        images: number of its images.
        recall: share of them that a head learnt from the other folds classifies correctly, 0..1.
        more: number of further images.
        gain_pp: expected rise of its recall with so many more, in percentage points.
    """

    label: str
    images: int
    recall: float
    more: int
    gain_pp: float


@dataclass(frozen=True)
class LearningCurve:
    """Learning curve of a set.

    Attributes:
        points: a quarter, a half, three quarters and all of the training folds.
        exponent: b of the power law error = a · n^−b; 0 where more images do not help.
        gain_pp: expected rise of balanced accuracy if every class grows by the `more` of its need, in percentage
            points; 0 where more images do not help.
        needs: classes, those with the largest gain first; classes that are too small are not in it.
    """

    points: tuple[CurvePoint, ...]
    exponent: float
    gain_pp: float
    needs: tuple[ClassNeed, ...]


def learning_curve(
    rows: FeatureRows,
    labels: Ints,
    names: Sequence[str],
    shrinkage: float,
    groups: Sequence[str],
    usable: npt.NDArray[np.bool_],
    seed: int = 0,
) -> LearningCurve | None:
    """The learning curve; None where fewer than two classes are large enough.

    Args:
        rows: features of N images.
        labels: int64 (N,): class indices.
        names: C names of the classes.
        shrinkage: shrinkage of the heads, 0..1.
        groups: N names of groups; an empty name is a group of its own.
        usable: bool (N,): False for images that are left out, as those with a wrong label.
        seed: seed of the folds and of the resamples.
    """  # fmt: skip
    classes = len(names)
    counts = np.bincount(labels[usable], minlength=classes)
    evaluated = np.flatnonzero(counts >= FEW)
    if len(evaluated) < 2:
        return None
    chosen = np.flatnonzero(usable & (counts[labels] >= FEW))
    some_groups = [groups[row] for row in chosen.tolist()]
    folds = stratified_folds(labels[chosen], FOLDS, seed, some_groups)
    quarters = stratified_folds(labels[chosen], QUARTERS, seed + 1, some_groups)
    correct, learnt = _correct(rows, labels, classes, chosen, folds, quarters, shrinkage)
    truth = labels[chosen]
    errors = _errors(correct, truth, np.ones((1, len(chosen))), classes)[0]
    drawn = _errors(correct, truth, _resamples(some_groups, seed), classes)
    sizes = learnt.sum(axis=1)
    macro, macro_drawn = errors[:, evaluated].mean(axis=1), drawn[:, :, evaluated].mean(axis=2)
    low, high = percentile_interval(1 - macro_drawn)
    points = tuple(
        CurvePoint((number + 1) / QUARTERS, float(sizes[number]), float(1 - macro[number]), float(low[number]),
                   float(high[number]))
        for number in range(QUARTERS)
    )  # fmt: skip
    more = np.array([further(count) for count in counts[evaluated].tolist()], dtype=np.float64)
    exponent = _exponent(sizes, macro)
    gains = _gains_alone(errors[:, evaluated], learnt[:, evaluated], exponent, counts[evaluated], more)
    needs = [
        ClassNeed(names[label], int(counts[label]), float(1 - errors[-1, label]), int(more[each]), 100 * gains[each])
        for each, label in enumerate(evaluated.tolist())
    ]
    together = 100 * _gain_together(errors[:, evaluated], learnt[:, evaluated], counts[evaluated], more)
    return LearningCurve(points, exponent, together, tuple(sorted(needs, key=lambda need: (-need.gain_pp, need.label))))


def further(images: int) -> int:
    """Number of further images that a class's gain is computed for: MORE, or about a quarter of what it has."""
    quarter = images // 4
    step = 10 ** (len(str(max(1, quarter))) - 1)
    return max(MORE, quarter // int(step) * int(step))


def _correct(
    rows: FeatureRows, labels: Ints, classes: int, chosen: Ints, folds: Ints, quarters: Ints, shrinkage: float
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Share of heads that are correct, float32 (QUARTERS, n), and rows of each class learnt from, (QUARTERS, C)."""
    parts = np.full(len(labels), -1, dtype=np.int64)
    parts[chosen] = folds * QUARTERS + quarters
    moments = moments_by_part(rows, labels, classes, parts, FOLDS * QUARTERS)
    correct = np.zeros((QUARTERS, len(chosen)), dtype=np.float32)
    learnt = np.zeros((QUARTERS, classes))
    for fold in range(FOLDS):
        by_quarter = [
            _sum([moments[other * QUARTERS + quarter] for other in range(FOLDS) if other != fold])
            for quarter in range(QUARTERS)
        ]
        mine = np.flatnonzero(folds == fold)
        for number in range(QUARTERS):
            starts = (fold, fold + 2) if number + 1 < QUARTERS else (fold,)
            for start in starts:
                used = _sum([by_quarter[(start + step) % QUARTERS] for step in range(number + 1)])
                learnt[number] += used.counts / (FOLDS * len(starts))
                head = fit_discriminant(used, shrinkage)
                at = 0
                for some, x in rows.blocks(chosen[mine]):
                    right = head.logits(x).argmax(axis=1) == labels[some]
                    correct[number, mine[at : at + len(some)]] += right / np.float32(len(starts))
                    at += len(some)
    return correct, learnt


def _sum(moments: Sequence[Moments]) -> Moments:
    total = moments[0]
    for more in moments[1:]:
        total = total + more
    return total


def _resamples(groups: Sequence[str], seed: int) -> Floats:
    """Weights of the images in bootstrap resamples of whole groups, float64 (DRAWS, n)."""
    _, number = np.unique([group or f"\0{row}" for row, group in enumerate(groups)], return_inverse=True)
    drawn = np.random.default_rng(seed).poisson(1.0, (DRAWS, int(number.max()) + 1))
    found: Floats = drawn[:, number].astype(np.float64)
    return found


def _errors(correct: npt.NDArray[np.float32], labels: Ints, weights: Floats, classes: int) -> Floats:
    """Weighted error of each class, float64 (draws, QUARTERS, C); 0.5 for a class without weight."""
    found = np.full((len(weights), len(correct), classes), 0.5)
    for draw, weight in enumerate(weights):
        total = np.bincount(labels, weights=weight, minlength=classes)
        for number, right in enumerate(correct):
            wrong = np.bincount(labels, weights=weight * (1 - right), minlength=classes)
            np.divide(wrong, total, out=found[draw, number], where=total > 0)
    return found


def _exponent(sizes: Floats, errors: Floats) -> float:
    """Exponent of the power law, at least 0, of sizes and errors, float64 (QUARTERS,) each."""
    x = np.log(sizes) - np.log(sizes).mean()
    return max(0.0, -float(x @ np.log(np.maximum(errors, _LEAST_ERROR))) / float(x @ x))


def _gains_alone(errors: Floats, learnt: Floats, exponent: float, counts: Ints, more: Floats) -> list[float]:
    """Fall of each class's error, of 1, with further images of it, float64 (QUARTERS, classes) and (classes,).

    A class's factor a is the mean of its errors times n^b, which weighs all points of its curve alike.
    """
    factor = (errors * np.maximum(learnt, 1.0) ** exponent).mean(axis=0)
    now, then = factor * counts.astype(np.float64) ** -exponent, factor * (counts + more) ** -exponent
    found: list[float] = (np.clip(now, 0, 1) - np.clip(then, 0, 1)).tolist()
    return found


def _gain_together(errors: Floats, learnt: Floats, counts: Ints, more: Floats) -> float:
    """Fall of the mean error, of 1, with further images of every class.

    What falls with 1 / n is told from what stays by the points of a half and of all of the training folds. One class's
    two points are noise, so each class has a share of the common fall, by its error.
    """
    half, full = errors[1], errors[-1]
    weight = float((full * (1 / np.maximum(learnt[1], 1.0) - 1 / np.maximum(learnt[-1], 1.0))).sum())
    fall = max(0.0, float((half - full).sum())) / max(weight, 1e-12)
    return float(min(full.mean(), (fall * full * (1 / counts - 1 / (counts + more))).mean()))
