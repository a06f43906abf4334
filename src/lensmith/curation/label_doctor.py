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
from threadpoolctl import threadpool_limits

from lensmith.config import TrainSettings
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.curation.discriminant import FeatureRows, Ints
from lensmith.curation.findings import (
    LIKELY,
    ConfusablePair,
    Outlier,
    Suspect,
    confusable_of,
    outliers_of,
    suspects_of,
)
from lensmith.curation.learning_curve import LearningCurve, learning_curve
from lensmith.curation.out_of_fold import FEW, evaluate_labels
from lensmith.curation.picture_quality import QualityFinding, measure_quality, quality_findings
from lensmith.data.consensus import Contested
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.value_ranges import decide_ranges
from lensmith.errors import DataError
from lensmith.training.feature_cache.image_features import image_features

LEAST_GAIN_PP = 0.05
"""Smallest gain of further images that a sentence is about, in percentage points."""


@dataclass(frozen=True)
class LabelDoctorResult(Result):
    """Result of `lensmith data doctor`.

    Attributes:
        folder: folder or CSV that was examined.
        images: number of images that were evaluated.
        classes: number of classes.
        model: backbone of the features.
        wrong_labels: expected number of wrong labels, the sum of all scores.
        suspects: labels that another class fits better, the likeliest to be wrong first.
        outliers: pictures least like any class.
        confusable: pairs of classes that heads confuse, the most confused first.
        quality: pictures of poor quality, by kind.
        curve: learning curve; None where classes are too small.
        unreadable: path and reason of files that cannot be used as images.
        notes: sentences about how the set was read and evaluated.
        warnings: sentences about what is doubtful.
        contested: images that are left out since their labels contradict each other.
        out: folder of the page and the lists; None where nothing was written.
        seconds: duration in seconds.
        computed_features: number of images whose features were computed; those of the others were cached.
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
    computed_features: int = 0
    excluded: tuple[str, ...] = field(default=())
    relabelled: tuple[tuple[str, str, str], ...] = field(default=())

    @property
    def report(self) -> Path | None:
        """The HTML page; None where nothing was written."""
        return None if self.out is None else self.out / "report.html"

    @property
    def flagged(self) -> tuple[Suspect, ...]:
        """The suspects that are flagged."""
        return tuple(suspect for suspect in self.suspects if suspect.flagged)

    def summary(self) -> list[str]:
        """Lines for people about what was found, without the names of files."""
        flagged, certain = len(self.flagged), sum(suspect.score >= LIKELY for suspect in self.suspects)
        lines = [
            f"Labels that are probably wrong: about {self.wrong_labels:.0f} of {self.images:,} "
            f"({flagged:,} flagged, {certain:,} of them likelier wrong than right)."
        ]
        if others := len(self.suspects) - flagged:
            lines.append(f"Labels that are worth a look, since another class fits better: {others:,} more.")
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
        return lines + (describe_curve(self.curve) if self.curve else [])


def describe_curve(curve: LearningCurve) -> list[str]:
    """Sentences on what more images of all classes would bring, and of those classes that need them most."""
    least, most = min(need.more for need in curve.needs), max(need.more for need in curve.needs)
    together = (
        f"{least:,}{f' to {most:,}' if most > least else ''} more of every class: about +{curve.gain_pp:.1f} points of "
        f"balanced accuracy ({curve.points[-1].balanced_accuracy:.0%} now)."
    )
    return [together] * (curve.gain_pp >= LEAST_GAIN_PP) + [
        f"{need.more:,} more of {need.label}: about +{need.gain_pp:.1f} points of its recall "
        f"({need.images:,} images now, recall {need.recall:.0%})."
        for need in curve.needs[:3]
        if need.gain_pp >= LEAST_GAIN_PP
    ]


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
    groups = [sample.group for sample in samples]
    learnt = None
    with threadpool_limits(limits=1, user_api="blas"):  # threads of so small products wait for each other
        evaluation = evaluate_labels(rows, labels, len(images.labels), settings.seed)
        if curve:
            usable = evaluation.wrong < LIKELY
            learnt = learning_curve(rows, labels, images.labels, evaluation.shrinkage, groups, usable, settings.seed)
    ranges = decide_ranges(images)
    quality = quality_findings(samples, measure_quality(images, samples, ranges))
    few = [label for number, label in enumerate(images.labels) if not evaluation.evaluated[number]]
    notes = [f"Classes of fewer than {FEW} images, whose labels are not evaluated: {listed(few)}."] if few else []
    contested = {each.path for each in images.contested}
    unreadable = [each for each in images.set_aside if each[0] not in contested]
    unreadable += [(looked_at[row].path, why) for row, why in features.unreadable.items()]
    return LabelDoctorResult(
        folder=images.root,
        images=len(samples),
        classes=len(images.labels),
        model=settings.model,
        wrong_labels=float(evaluation.wrong.sum()),
        suspects=suspects_of(images, samples, evaluation),
        outliers=outliers_of(images, samples, evaluation),
        confusable=confusable_of(images.labels, labels, evaluation),
        quality=tuple(quality),
        curve=learnt,
        unreadable=tuple(sorted(unreadable)),
        notes=(*images.notes, *notes),
        warnings=images.warnings,
        image_set=images,
        contested=images.contested,
        seconds=time.perf_counter() - started,
        computed_features=features.computed,
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
