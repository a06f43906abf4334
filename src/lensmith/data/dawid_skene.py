"""Dawid–Skene consensus: true classes and the annotators' error rates, estimated from each other by EM.

Dawid and Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm", Journal of the
Royal Statistical Society C 28. An annotator who is often against the others counts less, and one who always takes
dogs for wolves is understood.
"""

from dataclasses import dataclass

import numpy as np

from lensmith.data.ratings import Floats, Ints, Ratings
from lensmith.errors import SettingsError

ITERATIONS = 300
TOLERANCE = 1e-6
"""Largest change of a probability at which the iteration ends."""
PSEUDO_COUNT = 0.01
"""Labels that are added to each cell of an annotator's error rates, so that none is 0 for a class rarely met."""
MOST_NUMBERS = 50_000_000
"""Largest number of error rates, and of labels times classes: above it memory would run out."""


@dataclass(frozen=True)
class DawidSkene:
    """Estimates of the method for N pictures, R annotators and C classes.

    Attributes:
        probabilities: float64 (N, C), each row summing to 1: probability that a picture is of a class.
        error_rates: float64 (R, C, C), 0..1: probability that an annotator gives the second class where the first is
            true.
        accuracy: float64 (R,), 0..1: expected share of an annotator's labels that are true.
    """

    probabilities: Floats
    error_rates: Floats
    accuracy: Floats


def is_affordable(ratings: Ratings) -> bool:
    """Whether memory suffices for the method."""
    classes = len(ratings.classes)
    return max(len(ratings.annotators) * classes * classes, len(ratings.label) * classes) <= MOST_NUMBERS


def dawid_skene(ratings: Ratings) -> DawidSkene:
    """Estimate the true classes from the shares of votes on, until no probability changes.

    Args:
        ratings: the labels, one at least.

    Raises:
        SettingsError: there are too many annotators and classes for it.
    """
    if not is_affordable(ratings):
        raise SettingsError(
            "Fewer annotators and classes were expected for the consensus of Dawid and Skene.",
            f"{len(ratings.annotators):,} annotators, {len(ratings.classes):,} classes and {len(ratings.label):,} "
            "labels arrived.",
            "Use --consensus majority.",
        )
    classes = len(ratings.classes)
    key = ratings.picture * classes + ratings.label
    shares = np.bincount(key, minlength=len(ratings.pictures) * classes).reshape(-1, classes)
    probabilities = shares / ratings.labels_of_picture[:, None]
    rates = _error_rates(ratings, probabilities)
    for _ in range(ITERATIONS):
        before, probabilities = probabilities, _probabilities(ratings, probabilities.mean(axis=0), rates)
        rates = _error_rates(ratings, probabilities)
        if np.abs(probabilities - before).max() < TOLERANCE:
            break
    right = probabilities[ratings.picture, ratings.label]
    labels = np.bincount(ratings.annotator, minlength=len(ratings.annotators))
    correct = np.bincount(ratings.annotator, weights=right, minlength=len(ratings.annotators))
    return DawidSkene(probabilities, rates, correct / labels)


def _error_rates(ratings: Ratings, probabilities: Floats) -> Floats:
    """float64 (R, C, C): how each annotator labels each class, by the pictures' probabilities, float64 (N, C)."""
    annotators, classes = len(ratings.annotators), len(ratings.classes)
    given: Ints = ratings.annotator * classes + ratings.label
    counts = np.stack(
        [
            np.bincount(given, weights=probabilities[ratings.picture, true], minlength=annotators * classes)
            for true in range(classes)
        ]
    )
    rates = counts.reshape(classes, annotators, classes).swapaxes(0, 1) + PSEUDO_COUNT
    return np.asarray(rates / rates.sum(axis=2, keepdims=True), np.float64)


def _probabilities(ratings: Ratings, shares: Floats, rates: Floats) -> Floats:
    """float64 (N, C): probabilities of the pictures' classes, from the classes' shares (C,) and the error rates."""
    of_labels = np.log(rates)[ratings.annotator, :, ratings.label]  # (M, C)
    logarithms = np.add.reduceat(of_labels, ratings.starts, axis=0) + np.log(np.maximum(shares, 1e-300))
    likelihood = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True), np.float64)
