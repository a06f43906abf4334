"""Findings of the label doctor: suspects, outliers and confusable classes, from what heads say about each label."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lensmith.core.stats import robust_distance
from lensmith.curation.discriminant import Ints
from lensmith.curation.out_of_fold import LabelEvaluation
from lensmith.data.image_set import ImageSet, Sample

SHARE = 0.1
"""Most suspects as a share of the images: so many people look through. All that are flagged are among them."""

FLAGGED = 0.1
"""Probability of being wrong from which on a label is flagged."""

CERTAIN = 0.9
"""The same from which on, with so likely a suggestion, a correction is proposed."""

LIKELY = 0.5
"""The same from which on a label counts as wrong, and is left out of confusions and of the learning curve."""

CONFUSED_SHARE, CONFUSED_IMAGES = 0.02, 3
"""Classes are confusable if heads take so large a share of their images, and so many, for the other class."""

FAR, UNLIKELY = 4.0, 1.5
"""Distance from every class, and energy, from which on a picture is unlike its set, in robust standard deviations."""

REASONS = ("far from every class", "no class is likely")
"""How a picture is unlike its set: by `Discriminant.distance`; by `LabelEvaluation.energy`."""

OUTLIER_SHARE, OUTLIERS = 0.01, 3
"""Most outliers, as a share of the images, or in number where that is more."""


@dataclass(frozen=True)
class Suspect:
    """A label that another class fits better.

    Attributes:
        path: path relative to the set's root.
        label: the label as it is.
        suggested: the likeliest other class.
        score: probability that the label is wrong, 0..1, as far as the noise model can tell: a label of a similar
            class looks to it like a hard picture.
        flagged: whether that probability is FLAGGED or more; else the label is worth a look, and no more.
        label_probability: probability of the label's class, 0..1, from heads that have not seen the image.
        suggested_probability: probability of the suggested class, 0..1.
    """

    path: str
    label: str
    suggested: str
    score: float
    flagged: bool
    label_probability: float
    suggested_probability: float

    @property
    def is_certain(self) -> bool:
        """Whether the label is nearly certainly wrong, and the suggestion right."""
        return self.score >= CERTAIN and self.suggested_probability >= CERTAIN


@dataclass(frozen=True)
class Outlier:
    """A picture that looks like no class.

    Attributes:
        path: path relative to the set's root.
        label: the label as it is.
        reason: far from every class, or no class is likely.
    """

    path: str
    label: str
    reason: str


@dataclass(frozen=True)
class ConfusablePair:
    """Two classes that heads confuse.

    Attributes:
        labels: names of both classes.
        confused: number of images of one that were taken for the other, without those whose label is probably wrong.
        share: the same as a share of the images of both, 0..1.
        wrong_labels: number of images of one whose label is probably wrong, and that belong to the other.
    """

    labels: tuple[str, str]
    confused: int
    share: float
    wrong_labels: int


def suspects_of(images: ImageSet, samples: Sequence[Sample], evaluation: LabelEvaluation) -> tuple[Suspect, ...]:
    """Labels that are flagged or that another class fits better, the likeliest to be wrong first."""
    fits_better = (evaluation.other_probability > evaluation.own) & evaluation.evaluated[
        [sample.label for sample in samples]
    ]
    flagged = evaluation.wrong >= FLAGGED
    order = np.lexsort((evaluation.own, -evaluation.wrong))
    order = order[(flagged | fits_better)[order]][: max(math.ceil(SHARE * len(samples)), int(flagged.sum()))]
    return tuple(
        Suspect(
            samples[row].path,
            images.labels[samples[row].label],
            images.labels[evaluation.other[row]],
            round(float(evaluation.wrong[row]), 4),
            bool(flagged[row]),
            round(float(evaluation.own[row]), 4),
            round(float(evaluation.other_probability[row]), 4),
        )
        for row in order.tolist()
    )


def outliers_of(images: ImageSet, samples: Sequence[Sample], evaluation: LabelEvaluation) -> tuple[Outlier, ...]:
    """Pictures unlike their set, by distance and energy in turn: photos among drawings are far, noise is unlikely."""
    most = max(OUTLIERS, int(OUTLIER_SHARE * len(samples)))
    far, unlikely = robust_distance(evaluation.distance), robust_distance(evaluation.energy)
    ranks = np.full(len(samples), len(samples))
    reasons = np.zeros(len(samples), dtype=np.int64)
    for kind, (values, least) in enumerate(((far, FAR), (unlikely, UNLIKELY))):
        order = np.argsort(-values, kind="stable")[:most]
        for rank, row in enumerate(order.tolist()):
            if values[row] > least and rank < ranks[row]:
                ranks[row], reasons[row] = rank, kind
    found = np.argsort(ranks, kind="stable")[:most]
    return tuple(
        Outlier(samples[row].path, images.labels[samples[row].label], REASONS[reasons[row]])
        for row in found.tolist()
        if ranks[row] < len(samples)
    )


def confusable_of(names: Sequence[str], labels: Ints, evaluation: LabelEvaluation) -> tuple[ConfusablePair, ...]:
    """Pairs of classes that heads confuse, the most confused first.

    Args:
        names: names of the classes.
        labels: int64 (N,): class indices.
        evaluation: what heads say about the labels.
    """
    counts = np.bincount(labels, minlength=len(names))
    taken = np.flatnonzero(evaluation.other_probability > evaluation.own)
    confused: dict[tuple[int, int], int] = defaultdict(int)
    wrong: dict[tuple[int, int], int] = defaultdict(int)
    for row in taken.tolist():
        first, second = sorted((int(labels[row]), int(evaluation.other[row])))
        (wrong if evaluation.wrong[row] >= LIKELY else confused)[first, second] += 1
    pairs = [
        ConfusablePair((names[a], names[b]), count, count / int(counts[a] + counts[b]), wrong[a, b])
        for (a, b), count in confused.items()
        if count >= CONFUSED_IMAGES and count >= CONFUSED_SHARE * (counts[a] + counts[b])
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.share, pair.labels)))
