"""Cross-validated figures: out-of-fold answers put together, with intervals that count groups, not images.

Each image is answered by the model of its fold, which did not learn from it. The answers of all folds are pooled, and
figures are computed from them all; the mean of the folds' own F1 would be biased where folds lack images of a class
(Forman and Scholz 2010, "Apples-to-apples in cross-validation studies").

Images of one group succeed and fail together, so they count for less than as many single images. The interval of the
accuracy is Wilson's, with the number of single images that would vary as much (Korn and Graubard 1998, "Confidence
intervals for proportions with small expected number of positive counts estimated from survey data"); those of the other
figures come from a bootstrap that draws whole groups (Davison and Hinkley 1997, "Bootstrap Methods and their
Application", 3.8).

With other training images all models would be a little different, and models of different folds share most of theirs.
No unbiased estimate of that variance exists (Bengio and Grandvalet 2004). Intervals of all folds together are widened
by the factor that Nadeau and Bengio give for it (2003, "Inference for the generalization error"): with K folds the
variance is 1 + K / (K - 1) times that of the answers alone. `bench/cross_validation.py` shows how often they cover.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from lensmith.core.result import Result
from lensmith.core.stats import percentile_interval, wilson_of_share
from lensmith.evaluation.metrics import ADDED, RESAMPLES, Ints, measure
from lensmith.imaging.preprocessing import Tensor

OUT_OF_FOLD = "out-of-fold"
"""Part of an evaluation whose images were each answered by the model of their fold."""

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldFigures(Result):
    """Figures of one fold's model on that fold.

    Attributes:
        fold: number of the fold, from 0 on.
        images: number of its images that could be read.
        accuracy: share of correct answers, 0..1.
        accuracy_interval: its 95 % interval for this very model, which counts groups.
        log_loss: mean −ln of the true class's probability, ≥ 0.
        best_epoch: the epoch of the model, 1-based.
    """

    fold: int
    images: int
    accuracy: float
    accuracy_interval: Interval
    log_loss: float
    best_epoch: int


@dataclass(frozen=True)
class CrossValidation(Result):
    """Figures of a cross-validation: of the models of the folds, not of the model that learnt from all images.

    Attributes:
        folds: figures of each fold, in order.
        images: number of images that were answered, N.
        groups: number of groups of these images; an image without a group counts as one.
        monitor: the setting that chose the epochs: loss, accuracy, balanced_accuracy or f1.
        accuracy: share of correct answers among all N, 0..1.
        accuracy_interval: its 95 % interval.
        balanced_accuracy: mean recall of the classes, 0..1.
        balanced_accuracy_interval: its 95 % interval.
        f1_macro: mean F1 of the classes, 0..1.
        f1_macro_interval: its 95 % interval.
        log_loss: mean −ln of the true class's probability, before any calibration, ≥ 0.
        log_loss_interval: its 95 % interval.
        accuracy_spread: standard deviation of the folds' accuracies, 0..1.
        epochs: number of epochs that the model on all images learnt.
    """

    folds: tuple[FoldFigures, ...]
    images: int
    groups: int
    monitor: str
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    f1_macro: float
    f1_macro_interval: Interval
    log_loss: float
    log_loss_interval: Interval
    accuracy_spread: float
    epochs: int

    @property
    def monitored(self) -> tuple[str, float, Interval]:
        """The monitored figure's name for people, its value and its interval."""
        name, words = {
            "loss": ("log_loss", "log loss"),
            "accuracy": ("accuracy", "accuracy"),
            "balanced_accuracy": ("balanced_accuracy", "balanced accuracy"),
            "f1": ("f1_macro", "macro F1"),
        }[self.monitor]
        return words, getattr(self, name), getattr(self, f"{name}_interval")


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold answers. N images, C classes.

    Attributes:
        truth: int64 (N,), true classes.
        probabilities: float32 (N, C) of the model of each image's fold, at temperature 1.
        folds: int64 (N,), fold of each image.
        groups: N names; images of one name succeed and fail together.
    """

    truth: Ints
    probabilities: Tensor
    folds: Ints
    groups: Sequence[str]

    def figures(self, monitor: str, best_epochs: Sequence[int], epochs: int) -> CrossValidation:
        """Compute the figures, with their intervals.

        Args:
            monitor: the setting that chose the epochs.
            best_epochs: the best epoch of each fold's model, 1-based.
            epochs: number of epochs that the model on all images learns.
        """
        found = measure(self.truth, self.probabilities)
        numbers = _group_numbers(self.groups)
        inflation = variance_inflation(len(best_epochs))
        intervals = group_bootstrap(self.truth, self.probabilities, numbers, inflation)
        correct = self.probabilities.argmax(axis=1) == self.truth
        of_folds = []
        for fold, best in enumerate(best_epochs):
            rows = np.flatnonzero(self.folds == fold)
            own = measure(self.truth[rows], self.probabilities[rows])
            interval = group_interval(correct[rows], _group_numbers([self.groups[row] for row in rows.tolist()]))
            of_folds.append(FoldFigures(fold, len(rows), own.accuracy, interval, own.log_loss, best))
        return CrossValidation(
            folds=tuple(of_folds),
            images=found.images,
            groups=int(numbers.max()) + 1,
            monitor=monitor,
            accuracy=found.accuracy,
            accuracy_interval=group_interval(correct, numbers, inflation),
            balanced_accuracy=found.balanced_accuracy,
            balanced_accuracy_interval=intervals["balanced_accuracy"],
            f1_macro=found.f1_macro,
            f1_macro_interval=intervals["f1_macro"],
            log_loss=found.log_loss,
            log_loss_interval=intervals["log_loss"],
            accuracy_spread=float(np.std([each.accuracy for each in of_folds], ddof=1)),
            epochs=epochs,
        )


def variance_inflation(folds: int) -> float:
    """Variance of a figure of K folds, over that of the answers alone: other training images change the models."""
    return 1 + folds / (folds - 1)


def group_interval(
    correct: npt.NDArray[np.bool_], groups: Ints, inflation: float = 1.0, level: float = 0.95
) -> Interval:
    """Interval of a share whose images come in groups: Wilson's, at the effective number of images.

    That is the number of independent images whose share would vary as the share of these groups does, and no more than
    there are images; for few groups it is reduced by the ratio of Student's quantiles (Korn and Graubard 1998). Where
    all answers are correct, or none, nothing tells how alike the images of a group are; then each counts as wholly
    alike. For groups of one image it is Wilson's interval.

    Args:
        correct: bool (N,), N ≥ 1.
        groups: int64 (N,), numbers 0..G-1 of the images' groups, each in use.
        inflation: factor of the variance, 1 or more; see `variance_inflation`.
        level: confidence level, 0..1.
    """
    sizes = np.bincount(groups).astype(np.float64)
    hits = np.bincount(groups, weights=correct)
    images, count = float(sizes.sum()), len(sizes)
    share = float(hits.sum() / images)
    if count == images:
        return wilson_of_share(share, images / inflation, level)
    if share in (0.0, 1.0) or count == 1:
        effective = images**2 / float((sizes**2).sum())  # Kish 1965: the groups as if each were one image
    else:
        variance = count / (count - 1) * float(((hits - share * sizes) ** 2).sum()) / images**2
        effective = min(images, share * (1 - share) / variance) if variance > 0 else images
        quantile = (1 + level) / 2
        effective *= float(student.ppf(quantile, images - 1) / student.ppf(quantile, count - 1)) ** 2
    return wilson_of_share(share, effective / inflation, level)


def group_bootstrap(
    truth: Ints, probabilities: Tensor, groups: Ints, inflation: float = 1.0, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of balanced accuracy, macro F1 and log loss: whole groups are drawn, with replacement.

    As in `metrics.bootstrap`, two correct and two wrong answers are added, here four groups of mean size whose images
    are distributed over the classes as all are: a model without a mistake would seem certain.

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C).
        groups: int64 (N,), numbers 0..G-1 of the images' groups, each in use.
        inflation: factor of the variance, 1 or more; see `variance_inflation`.
        seed: seed of the resampling.
    """
    classes, images = probabilities.shape[1], len(truth)
    predicted = probabilities.argmax(axis=1)
    losses = -np.log(np.maximum(probabilities[np.arange(images), truth].astype(np.float64), 1e-15))
    sizes = np.bincount(groups)
    of_class = np.bincount(truth, minlength=classes) / images
    there = np.flatnonzero(of_class)
    mistaken = np.roll(there, -1) if len(there) > 1 else (there + 1) % classes
    share = float(sizes.mean()) * of_class[there]
    rng = np.random.default_rng(seed)
    chances = np.full(len(sizes) + 2 * ADDED, 1 / (len(sizes) + 2 * ADDED))

    def draw() -> tuple[float, float, float]:
        times = rng.multinomial(len(chances), chances)
        weights = times[groups].astype(np.float64)
        right, wrong = times[len(sizes) : -ADDED].sum() * share, times[-ADDED:].sum() * share
        support = np.bincount(truth, weights=weights, minlength=classes)
        called = np.bincount(predicted, weights=weights, minlength=classes)
        hits = np.bincount(truth, weights=weights * (truth == predicted), minlength=classes)
        loss = float(weights @ losses / weights.sum()) if weights.sum() else float(losses.mean())
        support[there] += right + wrong
        called[there] += right
        called[mistaken] += wrong
        hits[there] += right
        present = support > 0
        recall, f1 = hits[present] / support[present], 2 * hits[present] / (support + called)[present]
        return float(recall.mean()), float(f1.mean()), loss

    lows, highs = percentile_interval([draw() for _ in range(RESAMPLES)])
    found = measure(truth, probabilities)
    values = (found.balanced_accuracy, found.f1_macro, found.log_loss)
    wider = math.sqrt(inflation)
    most = {"balanced_accuracy": 1.0, "f1_macro": 1.0, "log_loss": math.inf}
    return {
        name: (max(0.0, value - wider * max(0.0, value - low)), min(end, value + wider * max(0.0, high - value)))
        for (name, end), low, high, value in zip(most.items(), lows.tolist(), highs.tolist(), values, strict=True)
    }


def _group_numbers(groups: Sequence[str]) -> Ints:
    """int64 (N,): numbers 0..G-1 of N names of groups."""
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    found: Ints = numbers.astype(np.int64)
    return found


def as_entry(found: CrossValidation) -> dict[str, Any]:
    """The figures for a bundle's manifest, which says whose they are, as plain values."""
    return {
        "of": f"the models of the {len(found.folds)} folds, each on the images it did not learn from; the bundle's own "
        "model learnt from all of them",
        **found.as_dict(),
    }
