"""The label doctor: wrong labels, confusable classes, outliers, poor pictures, and what more images would bring.

A linear head on features of a frozen backbone evaluates each label out of fold; no network is trained and nothing is
downloaded. `examine` only looks; the verb (`diagnose.py`) also writes the page and the lists.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from lensmith.config import TrainSettings
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.curation.discriminant import FeatureRows, Floats, Ints
from lensmith.curation.learning_curve import ClassNeed, LearningCurve, learning_curve
from lensmith.curation.out_of_fold import FEW, LabelEvaluation, evaluate_labels
from lensmith.curation.picture_quality import QualityFinding, measure_quality, quality_findings
from lensmith.data.consensus import Contested
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.value_ranges import decide_ranges
from lensmith.errors import DataError
from lensmith.training.feature_cache.image_features import image_features

SUSPECT = 0.1
"""Probability of being wrong from which on a label is a suspect."""

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

LEAST_GAIN_PP = 0.05
"""Smallest gain of further images that a sentence is about, in percentage points."""


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        path: path relative to the set's root.
        label: the label as it is.
        suggested: the likeliest other class.
        score: probability that the label is wrong, 0..1.
        label_probability: probability of the label's class, 0..1, from heads that have not seen the image.
        suggested_probability: probability of the suggested class, 0..1.
    """

    path: str
    label: str
    suggested: str
    score: float
    label_probability: float
    suggested_probability: float


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


@dataclass(frozen=True)
class LabelDoctorResult(Result):
    """Result of `lensmith data doctor`.

    Attributes:
        folder: folder or CSV that was examined.
        images: number of images that were evaluated.
        classes: number of classes.
        model: backbone of the features.
        wrong_labels: expected number of wrong labels, the sum of all scores.
        suspects: labels that are probably wrong, the likeliest first.
        outliers: pictures least like any class.
        confusable: pairs of classes that heads confuse, the most confused first.
        quality: pictures of poor quality, by kind.
        curve: learning curve; None where classes are too small.
        unreadable: path and reason of images that cannot be read.
        notes: sentences about how the set was read and evaluated.
        warnings: sentences about what is doubtful.
        contested: images that are left out since their labels contradict each other.
        out: folder of the page and the lists; None where nothing was written.
        seconds: duration in seconds.
    """

    computed: ClassVar[tuple[str, ...]] = ("report",)
    hidden: ClassVar[tuple[str, ...]] = ("image_set",)

    folder: Path
    images: int
    classes: int
    model: str
    wrong_labels: float
    suspects: tuple[Suspect, ...]
    outliers: tuple[Outlier, ...]
    confusable: tuple[ConfusablePair, ...]
    quality: tuple[QualityFinding, ...]
    curve: LearningCurve | None
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    image_set: ImageSet
    contested: tuple[Contested, ...] = ()
    out: Path | None = None
    seconds: float = 0.0
    excluded: tuple[str, ...] = field(default=())
    relabelled: tuple[tuple[str, str, str], ...] = field(default=())

    @property
    def report(self) -> Path | None:
        """The HTML page; None where nothing was written."""
        return None if self.out is None else self.out / "report.html"

    def summary(self) -> list[str]:
        """Lines for people about what was found, without the names of files."""
        certain = sum(suspect.score >= LIKELY for suspect in self.suspects)
        lines = [
            f"Labels that are probably wrong: about {self.wrong_labels:.0f} of {self.images:,} "
            f"({len(self.suspects):,} suspects, {certain:,} of them likelier wrong than right)."
        ]
        if self.confusable:
            worst = (f"{' and '.join(pair.labels)} ({pair.share:.0%})" for pair in self.confusable)
            lines.append(f"Classes that are hard to tell apart: {listed(worst, 3)}.")
        counts: dict[str, int] = defaultdict(int)
        for finding in self.quality:
            counts[finding.kind] += 1
        poor = [f"{count:,} {kind}" for kind, count in counts.items()]
        poor += [f"{len(self.outliers):,} least like any class"] if self.outliers else []
        if poor:
            lines.append(f"Pictures to look at: {listed(poor)}.")
        needs = [need for need in self.curve.needs if need.gain_pp >= LEAST_GAIN_PP] if self.curve else []
        return lines + [describe_need(need) for need in needs[:3]]


def describe_need(need: ClassNeed) -> str:
    """A sentence on what more images of a class would bring."""
    return (
        f"{need.more} more of {need.label}: about +{need.gain_pp:.1f} points of recall "
        f"({need.low_pp:.1f} to {need.high_pp:.1f}; {need.images:,} images now, recall {need.recall:.0%})."
    )


def examine(
    images: ImageSet, settings: TrainSettings, samples: Sequence[Sample] | None = None, curve: bool = True
) -> LabelDoctorResult:
    """Examine the labels and pictures of a set; nothing is written.

    Args:
        images: the set; groups of its samples stay together in the folds of the learning curve.
        settings: backbone, weights and size of the images; seed of the folds.
        samples: samples of the set that are examined; all by default.
        curve: whether to compute the learning curve, which takes most of the time.

    Raises:
        DataError: fewer than two classes of FEW readable images.
        ModelError: the backbone or its weights are not available.
    """
    started = time.perf_counter()
    looked_at = images.samples if samples is None else samples
    features = image_features(images, looked_at, settings)
    readable = np.array([row for row in range(len(looked_at)) if row not in features.unreadable], dtype=np.int64)
    samples = [looked_at[row] for row in readable.tolist()]
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    _require_enough(images, labels)
    values = features.values.reshape(len(looked_at), -1)
    rows = FeatureRows(values if len(readable) == len(values) else values[readable], settings.seed)
    evaluation = evaluate_labels(rows, labels, len(images.labels), settings.seed)
    groups = [sample.group for sample in samples]
    usable = evaluation.wrong < LIKELY
    learnt = None
    if curve:
        learnt = learning_curve(rows, labels, images.labels, evaluation.shrinkage, groups, usable, settings.seed)
    ranges = decide_ranges(images)
    quality = quality_findings(samples, measure_quality(images, samples, ranges))
    few = [label for number, label in enumerate(images.labels) if not evaluation.evaluated[number]]
    notes = [f"Classes of fewer than {FEW} images, whose labels are not evaluated: {listed(few)}."] if few else []
    unreadable = tuple(sorted((looked_at[row].path, why) for row, why in features.unreadable.items()))
    return LabelDoctorResult(
        folder=images.root,
        images=len(samples),
        classes=len(images.labels),
        model=settings.model,
        wrong_labels=float(evaluation.wrong.sum()),
        suspects=_suspects(images, samples, evaluation),
        outliers=_outliers(images, samples, evaluation),
        confusable=_confusable(images.labels, labels, evaluation),
        quality=tuple(quality),
        curve=learnt,
        unreadable=unreadable,
        notes=(*images.notes, *notes),
        warnings=images.warnings,
        image_set=images,
        contested=images.contested,
        seconds=time.perf_counter() - started,
        excluded=images.excluded,
        relabelled=images.relabelled,
    )


def _require_enough(images: ImageSet, labels: Ints) -> None:
    large = int((np.bincount(labels, minlength=len(images.labels)) >= FEW).sum())
    if large < 2:
        raise DataError(
            f"At least two classes of {FEW} readable images were expected in {images.root}.",
            f"There {'is one' if large else 'is none'}.",
            "Add images: labels are evaluated by heads learnt from the other images of their class.",
        )


def _suspects(images: ImageSet, samples: Sequence[Sample], evaluation: LabelEvaluation) -> tuple[Suspect, ...]:
    order = np.lexsort((evaluation.own, -evaluation.wrong))
    return tuple(
        Suspect(
            samples[row].path,
            images.labels[samples[row].label],
            images.labels[evaluation.other[row]],
            round(float(evaluation.wrong[row]), 4),
            round(float(evaluation.own[row]), 4),
            round(float(evaluation.other_probability[row]), 4),
        )
        for row in order.tolist()
        if evaluation.wrong[row] >= SUSPECT
    )


def _outliers(images: ImageSet, samples: Sequence[Sample], evaluation: LabelEvaluation) -> tuple[Outlier, ...]:
    """Pictures unlike their set, by distance and energy in turn: photos among drawings are far, noise is unlikely."""
    most = max(OUTLIERS, int(OUTLIER_SHARE * len(samples)))
    far, unlikely = _robust(evaluation.distance), _robust(evaluation.energy)
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


def _robust(values: Floats) -> Floats:
    """float64 (N,): distance from the median in robust standard deviations (median absolute deviation)."""
    centre = np.median(values)
    return np.asarray((values - centre) / max(1e-9, 1.4826 * float(np.median(np.abs(values - centre)))))


def _confusable(names: Sequence[str], labels: Ints, evaluation: LabelEvaluation) -> tuple[ConfusablePair, ...]:
    """Pairs of classes by the images that heads take for the other one."""
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
