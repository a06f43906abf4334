"""Metrics: accuracy, F1, log loss, calibration error and the confusion matrix, from labels and probabilities.

Classes that have no image in the set have no recall, and are left out of every average over classes; they are in the
confusion matrix, because images of other classes may have been taken for them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from lensmith.core.result import plain
from lensmith.core.stats import percentile_interval, wilson
from lensmith.imaging.preprocessing import Tensor

CALIBRATION_BINS = 15
RESAMPLES = 1000
ADDED = 2
"""Number of correct and of wrong answers that are added before resampling."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, all 0..1.

    Attributes:
        precision: share of correct ones among the images predicted as this class; None if there are none.
        recall: share of the class's images that were predicted as it; None if it has none.
        f1: harmonic mean of both; None if the class has no image and was never predicted.
        support: number of the class's images in the set.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Calibration:
    """Confidence calibration: accuracy against confidence, in equal bins of confidence over 0..1.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks", with 15 bins as there.

    Attributes:
        error: expected calibration error: |accuracy − confidence| averaged over the images, bin by bin, 0..1.
        counts: number of images in each bin.
        confidence: mean confidence in each bin; None in an empty one.
        accuracy: share of correct answers in each bin; None in an empty one.
    """

    error: float
    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class Metrics:
    """Metrics of a set of answers. Shares are 0..1.

    Attributes:
        images: number of images, N.
        accuracy: share of images whose likeliest class is the true one.
        accuracy_interval: 95 % Wilson score interval of the accuracy.
        top_k: 5, or the number of classes if there are fewer.
        top_k_accuracy: share of images with the true class among the k likeliest.
        balanced_accuracy: mean recall of the classes that have images.
        f1_macro: mean F1 of the classes that have images.
        f1_weighted: the same, weighted by their images.
        log_loss: mean −ln of the true class's probability, ≥ 0.
        calibration: calibration error and the bins that it is computed from.
        per_class: scores of the C classes, in label order.
        confusion: int64 (C, C), rows true, columns predicted.
    """

    images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    top_k: int
    top_k_accuracy: float
    balanced_accuracy: float
    f1_macro: float
    f1_weighted: float
    log_loss: float
    calibration: Calibration
    per_class: tuple[ClassScores, ...]
    confusion: Ints

    @property
    def absent(self) -> tuple[int, ...]:
        """Classes without an image in the set."""
        return tuple(index for index, scores in enumerate(self.per_class) if scores.support == 0)

    def confusions(self, most: int) -> list[tuple[int, int, int]]:
        """Most frequent confusions, at most `most`: true class, predicted class, number of images."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        cells = np.argsort(-wrong, axis=None, kind="stable")[:most].tolist()
        return [(*divmod(cell, len(wrong)), int(wrong.flat[cell])) for cell in cells if wrong.flat[cell]]

    def headline(self) -> dict[str, Any]:
        """The numbers of the whole set as plain values; top-k is named by its k, such as `top5_accuracy`."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            f"top{self.top_k}_accuracy": self.top_k_accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "f1_macro": self.f1_macro,
            "f1_weighted": self.f1_weighted,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration.error,
        }

    def as_dict(self) -> dict[str, Any]:
        """`headline` with `per_class` (a list in label order), `confusion` (rows true) and `calibration`."""
        return {
            **self.headline(),
            "per_class": [plain(scores) for scores in self.per_class],
            "confusion": self.confusion.tolist(),
            "calibration": plain(self.calibration),
        }


def measure(labels: npt.NDArray[np.integer[Any]], probabilities: Tensor) -> Metrics:
    """Compare true classes with predicted distributions.

    Args:
        labels: int (N,), 0..C-1, N ≥ 1.
        probabilities: float32 (N, C), each row summing to 1, C ≥ 2.

    Raises:
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    labels = np.asarray(labels)
    refuse_misfits(labels, probabilities)
    count, classes = probabilities.shape
    everyone = np.arange(classes)
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    hits = int(correct.sum())
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=everyone, zero_division=np.nan
    )
    present = support > 0
    top_k = min(5, classes)
    return Metrics(
        images=count,
        accuracy=hits / count,
        accuracy_interval=wilson(hits, count),
        top_k=top_k,
        top_k_accuracy=float((_rank_of_truth(labels, probabilities) < top_k).mean()),
        balanced_accuracy=float(recall[present].mean()),
        f1_macro=float(f1[present].mean()),
        f1_weighted=float(np.average(f1[present], weights=support[present])),
        log_loss=float(log_loss(labels, probabilities, labels=everyone)),
        calibration=calibrate(correct, probabilities.max(axis=1)),
        per_class=tuple(
            ClassScores(_known(p), _known(r), _known(f), int(s))
            for p, r, f, s in zip(precision, recall, f1, support, strict=True)
        ),
        confusion=confusion_matrix(labels, predicted, labels=everyone),
    )


def calibrate(correct: npt.NDArray[np.bool_], confidence: Tensor, bins: int = CALIBRATION_BINS) -> Calibration:
    """Compute calibration from the confidence of the predicted class and whether it was correct.

    Args:
        correct: bool (N,), whether the predicted class is the true one.
        confidence: float32 (N,), probability of the predicted class, 0..1.
        bins: number of equal bins over 0..1; a confidence on an edge belongs to the bin below it.
    """
    where = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    divisor = np.maximum(counts, 1)
    mean_confidence = np.bincount(where, weights=confidence, minlength=bins) / divisor
    accuracy = np.bincount(where, weights=correct, minlength=bins) / divisor
    return Calibration(
        error=float((np.abs(accuracy - mean_confidence) * counts).sum() / len(confidence)),
        counts=tuple(int(n) for n in counts),
        confidence=tuple(float(c) if n else None for c, n in zip(mean_confidence, counts, strict=True)),
        accuracy=tuple(float(a) if n else None for a, n in zip(accuracy, counts, strict=True)),
    )


def _rank_of_truth(labels: npt.NDArray[np.integer[Any]], probabilities: Tensor) -> Ints:
    """int64 (N,): rank of each image's true class, 0 = likeliest; ties by class index, as in `Classifier.rank`."""
    # scikit-learn's top-k takes no (N, 2) and breaks ties the other way.
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    rank: Ints = (probabilities > truth).sum(axis=1) + ((probabilities == truth) & earlier).sum(axis=1)
    return rank


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def bootstrap(confusion: Ints, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of `f1_macro` and `balanced_accuracy`: the images are resampled, with replacement.

    Percentile intervals (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13). Drawing images is
    drawing cells of the confusion matrix, weighted by their images. A class that has no image in a draw is left out of
    its means, as `measure` leaves it out. Two correct and two wrong answers are added, distributed over the
    classes by their images, as Agresti and Coull 1998 do for one share: a model without a mistake would seem certain.

    Args:
        confusion: int64 (C, C), rows true, columns predicted; not all 0.
        seed: seed of the resampling; the same seed gives the same intervals.
    """
    classes, images = len(confusion), int(confusion.sum())
    support = confusion.sum(axis=1)
    there = np.flatnonzero(support)
    added = ADDED * support[there] / images
    mistaken = np.roll(there, -1) if len(there) > 1 else (there + 1) % classes
    truth, predicted = np.nonzero(confusion)
    measured = _means(truth, predicted, confusion[truth, predicted], classes)
    smoothed = np.concatenate([confusion[truth, predicted], added, added])
    truth, predicted = np.concatenate([truth, there, there]), np.concatenate([predicted, there, mistaken])
    rng = np.random.default_rng(seed)
    drawn = [
        _means(truth, predicted, rng.multinomial(images + 2 * ADDED, smoothed / smoothed.sum()), classes)
        for _ in range(RESAMPLES)
    ]
    lows, highs = percentile_interval(drawn)
    names = ("f1_macro", "balanced_accuracy")
    return {
        name: (float(min(low, value)), float(max(high, value)))
        for name, low, high, value in zip(names, lows, highs, measured, strict=True)
    }


def _means(truth: Ints, predicted: Ints, images: Ints, classes: int) -> tuple[float, float]:
    """Macro F1 and mean recall, from cells of a confusion matrix: int64 (K,) each, `images` being their counts."""
    correct = truth == predicted
    support = np.bincount(truth, weights=images, minlength=classes)
    called = np.bincount(predicted, weights=images, minlength=classes)
    hits = np.bincount(truth[correct], weights=images[correct], minlength=classes)
    present = support > 0
    f1 = 2 * hits[present] / (support + called)[present]
    return float(f1.mean()), float((hits[present] / support[present]).mean())


def refuse_misfits(labels: npt.NDArray[np.integer[Any]], probabilities: Tensor) -> None:
    """Refuse anything but labels int (N,) with probabilities float (N, C), 0..1.

    Raises:
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"labels (N,) and probabilities (N, C) were expected, not {labels.shape}, {probabilities.shape}"
        )
    classes = probabilities.shape[1]
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels were expected to be integers in 0..{classes - 1}")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > 1 + 1e-5:
        raise ValueError("probabilities were expected in 0..1")
