"""Each label against heads that have not seen it: suspects, confusions and outliers of a labelled set of features.

Folds are random, also where images have groups: near copies in other folds help to find a wrong label. Figures of
accuracy need group-safe folds, which `learning_curve` has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from lensmith.core.stats import evenly_spaced
from lensmith.curation.discriminant import (
    Discriminant,
    FeatureRows,
    Floats,
    Floats32,
    Ints,
    Moments,
    fit_discriminant,
    moments_by_part,
    stratified_folds,
)
from lensmith.curation.label_noise import LabelNoise, fit_noise

FOLDS = 5
SHRINKAGES = (0.1, 0.3, 0.7)
"""Shrinkages that are tried; the one whose heads explain the labels best is used."""

FEW = 4
"""Size of the smallest class whose labels are evaluated."""

_FIT_CELLS = 1_000_000
"""Largest number of logits that the noise model is fitted on."""
_FIT_ROWS = 20_000


@dataclass(frozen=True)
class LabelEvaluation:
    """What heads that have not seen an image say about its label.

    Attributes:
        wrong: float64 (N,): probability that the label is wrong, 0..1; 0 where it is not evaluated.
        own: float64 (N,): probability of the label itself, 0..1.
        other: int64 (N,): likeliest class beside the label.
        other_probability: float64 (N,): probability of that class, 0..1.
        distance: float64 (N,): distance from the nearest class; see `Discriminant.distance`.
        energy: float64 (N,): −log of the sum of exponentials of the calibrated logits; high where no class is likely.
            Source: Liu et al., Energy-based Out-of-distribution Detection, 2020.
        evaluated: bool (C,): whether the class has enough images.
        noise: the noise model.
        shrinkage: shrinkage that was chosen.
    """

    wrong: Floats
    own: Floats
    other: Ints
    other_probability: Floats
    distance: Floats
    energy: Floats
    evaluated: np.ndarray[tuple[int], np.dtype[np.bool_]]
    noise: LabelNoise
    shrinkage: float


def evaluate_labels(rows: FeatureRows, labels: Ints, classes: int, seed: int = 0) -> LabelEvaluation:
    """Evaluate every label by heads from the other folds.

    Args:
        rows: features of N images.
        labels: int64 (N,): class indices.
        classes: number of classes C ≥ 2.
        seed: seed of the folds.
    """
    count = len(labels)
    evaluated = np.bincount(labels, minlength=classes) >= FEW
    folds = stratified_folds(labels, FOLDS, seed)
    parts = moments_by_part(rows, labels, classes, folds, FOLDS)
    total = sum(parts[1:], parts[0])
    training = [total - part for part in parts]
    sample = _fitting_rows(np.flatnonzero(evaluated[labels]), classes)
    shrinkage = _choose_shrinkage(rows, labels, training[0], sample[folds[sample] == 0])
    heads = [fit_discriminant(moments, shrinkage, background=True) for moments in training]
    noise = _fit(rows, labels, folds, heads, sample)
    own, other_probability, distance, energy = (np.zeros(count) for _ in range(4))
    other = np.zeros(count, dtype=np.int64)
    for fold, head in enumerate(heads):
        for some, x in rows.blocks(np.flatnonzero(folds == fold)):
            logits = head.logits(x)
            energy[some] = -logsumexp(logits / np.float32(noise.temperature), axis=1)
            probabilities = noise.probabilities(logits).astype(np.float64)
            each = np.arange(len(some))
            own[some] = probabilities[each, labels[some]]
            probabilities[each, labels[some]] = -1
            other[some] = probabilities.argmax(axis=1)
            other_probability[some] = probabilities[each, other[some]]
            distance[some] = head.distance(x)
    wrong = np.where(evaluated[labels], noise.wrong(own, classes), 0.0)
    return LabelEvaluation(wrong, own, other, other_probability, distance, energy, evaluated, noise, shrinkage)


def _fitting_rows(rows: Ints, classes: int) -> Ints:
    most = max(1, min(_FIT_ROWS, _FIT_CELLS // classes))
    return np.asarray(evenly_spaced(rows.tolist(), most), dtype=np.int64)


def _choose_shrinkage(rows: FeatureRows, labels: Ints, training: Moments, sample: Ints) -> float:
    """The shrinkage whose head explains the labels of `sample`, rows of the fold left out, best."""
    if not len(sample):
        return SHRINKAGES[-1]
    losses = {}
    for shrinkage in SHRINKAGES:
        logits = _logits(fit_discriminant(training, shrinkage), rows, sample)
        losses[shrinkage] = fit_noise(logits, labels[sample]).loss
    return min(losses, key=losses.__getitem__)


def _fit(rows: FeatureRows, labels: Ints, folds: Ints, heads: Sequence[Discriminant], sample: Ints) -> LabelNoise:
    """The noise model of the labels of `sample`, each by the head of its fold."""
    if not len(sample):
        return LabelNoise(1.0, 1e-4, 0.0)
    logits = np.empty((len(sample), len(heads[0].bias)), dtype=np.float32)
    for fold, head in enumerate(heads):
        mine = np.flatnonzero(folds[sample] == fold)
        logits[mine] = _logits(head, rows, sample[mine])
    return fit_noise(logits, labels[sample])


def _logits(head: Discriminant, rows: FeatureRows, some: Ints) -> Floats32:
    """float32 (n, C): logits of the rows named."""
    return np.concatenate([np.empty((0, len(head.bias)), np.float32), *(head.logits(x) for _, x in rows.blocks(some))])
