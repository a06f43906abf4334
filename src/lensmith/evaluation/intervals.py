"""Bootstrap: 95 % confidence intervals of means over classes, such as macro F1."""

import numpy as np
import numpy.typing as npt

from lensmith.core.stats import percentile_interval

RESAMPLES = 1000
ADDED = 2
"""Number of correct and of wrong answers that are added."""

Interval = tuple[float, float]


def bootstrap(confusion: npt.NDArray[np.int64], seed: int = 0) -> dict[str, Interval]:
    """Bootstrap intervals of `f1_macro` and `balanced_accuracy`: the images are resampled, with replacement.

    Percentile intervals (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13). Drawing images is
    drawing cells of the confusion matrix, weighted by their images. A class that has no image in a draw is left out of
    its means, as `metrics.measure` leaves it out. Two correct and two wrong answers are added, distributed over the
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
    held = np.concatenate([confusion[truth, predicted], added, added])
    truth, predicted = np.concatenate([truth, there, there]), np.concatenate([predicted, there, mistaken])
    rng = np.random.default_rng(seed)
    drawn = [
        _means(truth, predicted, rng.multinomial(images + 2 * ADDED, held / held.sum()), classes)
        for _ in range(RESAMPLES)
    ]
    lows, highs = percentile_interval(drawn)
    names = ("f1_macro", "balanced_accuracy")
    return {
        name: (float(min(low, value)), float(max(high, value)))
        for name, low, high, value in zip(names, lows, highs, measured, strict=True)
    }


def _means(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], images: npt.NDArray[np.int64], classes: int
) -> tuple[float, float]:
    """Macro F1 and mean recall, from cells of a confusion matrix: int64 (K,) each, `images` being their counts."""
    correct = truth == predicted
    support = np.bincount(truth, weights=images, minlength=classes)
    called = np.bincount(predicted, weights=images, minlength=classes)
    hits = np.bincount(truth[correct], weights=images[correct], minlength=classes)
    present = support > 0
    f1 = 2 * hits[present] / (support + called)[present]
    return float(f1.mean()), float((hits[present] / support[present]).mean())
