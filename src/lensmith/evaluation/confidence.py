"""Confidence calibration by temperature scaling, and abstention: the confidence below which no answer is given.

Shapes: N images, C classes. Probabilities are a bundle's answers, float32 (N, C), each row summing to 1.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar

from lensmith.bundle.format import Abstention
from lensmith.core.result import Result
from lensmith.core.stats import smoothed
from lensmith.errors import SettingsError
from lensmith.evaluation.metrics import Ints, measure, refuse_misfits
from lensmith.imaging.preprocessing import Tensor

MIN_IMAGES = 50
"""Fewer images say nothing about a temperature: at 20, leaving it at 1 lost less than any fit that was tried."""
SPREAD = math.log(2.0)
"""Prior standard deviation of ln T: two image sets in three need a T of 1/2 to 2."""
BOUNDS = (0.1, 10.0)
"""Range of the temperature; networks need 0.5 to 4."""
MIN_ANSWERS = 10
"""Fewer answers prove no precision."""

_LEAST_LOG = np.float32(math.log(np.finfo(np.float32).smallest_subnormal))

MOST_COOLED = 1000.0
"""The highest temperature of `least_temperature`, which makes logits of some thousands harmless."""


@dataclass(frozen=True)
class TemperatureScaling(Result):
    """A temperature, and its effect on calibration for images that it was not fitted to.

    Attributes:
        temperature: T, by which logits are divided; above 1 the confidence falls, below 1 it rises.
        error_before: expected calibration error of the network's own answers, 0..1 (`metrics.Calibration`).
        error_after: the same with temperature and smoothing; each half of the images at the T that the other half gave.
        log_loss_before: mean −ln of the true class's probability, by the network's own answers.
        log_loss_after: the same with temperature and smoothing, half by half.
        images: number of labelled images, N.
        smoothing: share of each answer that is spread evenly over the classes after the softmax, 0..1.
    """

    temperature: float
    error_before: float
    error_after: float
    log_loss_before: float
    log_loss_after: float
    images: int
    smoothing: float


@dataclass(frozen=True)
class Answered:
    """Effect of an abstention threshold on labelled images.

    Attributes:
        coverage: share of images that get an answer, 0..1.
        precision: share of correct answers among the given ones, 0..1; None if none was given.
    """

    coverage: float
    precision: float | None


def supported_confidence(images: int) -> float:
    """The highest confidence that so many images without a mistake can support, 0.5..1.

    Source: Laplace's rule of succession, (N + 1) / (N + 2): the expected share of correct answers after N of N.
    """
    return (images + 1) / (images + 2)


def least_smoothing(images: int, classes: int) -> float:
    """The share of an answer to spread over the classes so that no answer is certain beyond (N + 1/2) / (N + 1).

    That is Jeffreys' estimate of the share of correct answers after N of N. A temperature bounds the mean confidence on
    images like these; what a network has never seen may lie far from them, where its logits grow without end.
    """
    return classes / (classes - 1) / (2 * (images + 1))


def least_temperature(probabilities: Tensor, smoothing: float = 0.0) -> float:
    """The temperature below which the mean confidence is more than so many images can support.

    It depends on no label, so it can be used on the images that it was computed from.

    Args:
        probabilities: float32 (N, C) at T = 1.
        smoothing: share of an answer that is spread over the classes afterwards, 0..1.

    Returns:
        T within BOUNDS[0]..MOST_COOLED: above 1 where the confidence has to fall.
    """
    most = supported_confidence(len(probabilities)) - smoothing / probabilities.shape[1]
    logs = _centred_logs(probabilities)

    def excess(log_temperature: float) -> float:
        sums = np.exp(logs * np.float32(math.exp(-log_temperature))).sum(axis=1)
        return float((1 - smoothing) * (1 / sums).mean(dtype=np.float64) - most)

    low, high = math.log(BOUNDS[0]), math.log(MOST_COOLED)
    if excess(low) <= 0:
        return BOUNDS[0]
    return MOST_COOLED if excess(high) >= 0 else math.exp(brentq(excess, low, high, xtol=1e-6))


def scale(truth: Ints, probabilities: Tensor) -> TemperatureScaling:
    """Fit a temperature, and cross-validate it.

    The images are halved, class by class in turn; each half is evaluated at the temperature that the other half gives.
    Where that raises the log loss, or the images are fewer than MIN_IMAGES, the temperature stays 1. In no case is it
    below `least_temperature`: without mistakes confidence could grow without end. Besides, every answer is smoothed by
    `least_smoothing`.

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C) at T = 1.

    Raises:
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    before = measure(truth, probabilities)
    smoothing = least_smoothing(*probabilities.shape)
    least = least_temperature(probabilities, smoothing)

    def effect(temperature: float, answers: Tensor) -> TemperatureScaling:
        """The effect of float32 (N, C) answers in the place of the network's own."""
        after = measure(truth, answers)
        errors = before.calibration.error, after.calibration.error
        return TemperatureScaling(temperature, *errors, before.log_loss, after.log_loss, before.images, smoothing)

    unfitted = effect(max(1.0, least), scaled(probabilities, max(1.0, least), smoothing))
    if before.images < MIN_IMAGES:
        return unfitted
    half_of = np.empty(before.images, dtype=np.bool_)
    half_of[np.argsort(truth, kind="stable")] = np.arange(before.images) % 2 == 1
    crossed = np.empty_like(probabilities)
    for half in (half_of, ~half_of):
        temperature = max(least, fit_temperature(truth[~half], probabilities[~half]))
        crossed[half] = scaled(probabilities[half], temperature, smoothing)
    fitted = effect(max(least, fit_temperature(truth, probabilities)), crossed)
    return fitted if fitted.log_loss_after < unfitted.log_loss_after else unfitted


def fit_temperature(truth: Ints, probabilities: Tensor) -> float:
    """The temperature with which the labels are most likely.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks", with a log-normal prior around 1; over T

        mean of −ln softmax(ln p / T)[truth]  +  (ln T)² / (2 N SPREAD²)

    is minimised. Without the prior a small set of correct answers drives T to zero, and every answer to certainty.
    Platt's smoothed targets (1999) prevent that too, but put the confidence of a network that is correct on all of N
    images at (N + 1) / (N + 2), however well it was calibrated; here that is the most (`least_temperature`).

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C) at T = 1.

    Returns:
        T within BOUNDS.

    Raises:
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    refuse_misfits(truth, probabilities)
    logs = _centred_logs(probabilities)
    of_truth = logs[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        factor = np.float32(math.exp(-log_temperature))
        likelihood = np.log(np.exp(logs * factor).sum(axis=1)) - of_truth * factor
        return float(likelihood.mean(dtype=np.float64)) + log_temperature**2 / (2 * len(truth) * SPREAD**2)

    bounds = (math.log(BOUNDS[0]), math.log(BOUNDS[1]))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)


def at_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """The engine's answers at another temperature: softmax(logits / T), from softmax(logits).

    Args:
        probabilities: float32 (N, C) at T = 1.
        temperature: T > 0.

    Returns:
        float32 (N, C). A probability that was rounded to 0 counts as the smallest there is, 1e-45.
    """
    exponentials = np.exp(_centred_logs(probabilities) / np.float32(temperature))
    result: Tensor = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def scaled(probabilities: Tensor, temperature: float, smoothing: float) -> Tensor:
    """A bundle's answers, float32 (N, C), with a temperature and a smoothing, from the network's own."""
    return smoothed(at_temperature(probabilities, temperature), smoothing)


def threshold_for(truth: Ints, probabilities: Tensor, wanted: float) -> Abstention:
    """Fit an abstention threshold: the least confidence above which the answers reach a precision.

    The threshold lies half-way between two neighbouring confidences that rounding cannot swap, so each of these images
    is on the same side of it when it is classified again. Where every answer can be given it lies just below the least
    confidence among them, since of less certain answers nothing is known.

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C), at the temperature at which the bundle will answer.
        wanted: share of correct answers among the given ones, 0 < wanted ≤ 1.

    Raises:
        SettingsError: no threshold reaches the share with MIN_ANSWERS answers; the error names the best share.
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    refuse_misfits(truth, probabilities)
    if not 0 < wanted <= 1:
        raise SettingsError(
            "A share of correct answers above 0 and up to 1 was expected.",
            f"{wanted:g} arrived.",
            "Give a share such as 0.95.",
        )
    correct, confidence = _correct_and_confidence(truth, probabilities)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order].astype(np.float64)
    count = len(order)
    given = np.arange(1, count + 1)
    precision = correct[order].cumsum() / given
    # Below the least confident image there is no further answer to lose.
    below = np.append(sorted_confidence[1:], -1.0)
    possible = np.flatnonzero((sorted_confidence - below > _blur(sorted_confidence)) & (given >= MIN_ANSWERS))
    reached = possible[precision[possible] >= wanted - 1e-12]
    if not len(reached):
        raise _out_of_reach(wanted, precision, possible, count)
    last = int(reached[-1])
    margin = float(_blur(sorted_confidence[last:])[0] / 2)
    midway = float(sorted_confidence[last] + below[last]) / 2
    return Abstention(
        threshold=max(0.0, float(sorted_confidence[last]) - margin) if last == count - 1 else midway,
        wanted=wanted,
        precision=float(precision[last]),
        coverage=(last + 1) / count,
        answers=last + 1,
    )


def answered_at(truth: Ints, probabilities: Tensor, threshold: float) -> Answered:
    """The answers with at least a threshold's confidence, by the comparison of `Classifier.rank`.

    Args:
        truth: int64 (N,), N ≥ 1.
        probabilities: float32 (N, C).
        threshold: least confidence of a given answer, 0..1.
    """
    correct, confidence = _correct_and_confidence(truth, probabilities)
    given = confidence.astype(np.float64) >= threshold
    return Answered(float(given.mean()), float(correct[given].mean()) if given.any() else None)


def _centred_logs(probabilities: Tensor) -> Tensor:
    """float32 (N, C): logits, up to a constant in each row that makes the largest 0."""
    with np.errstate(divide="ignore"):
        logs: Tensor = np.maximum(np.log(probabilities, dtype=np.float32), _LEAST_LOG)
    centred: Tensor = logs - logs.max(axis=1, keepdims=True)
    return centred


def _correct_and_confidence(truth: Ints, probabilities: Tensor) -> tuple[npt.NDArray[np.bool_], Tensor]:
    confidence: Tensor = probabilities.max(axis=1)
    return probabilities.argmax(axis=1) == truth, confidence


def _blur(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 (N,): distances at which float32 tells confidences apart, whatever the order of summation."""
    # A logit of 30 is exact to 1e-6, and moves a probability p by p (1 - p) times that; p itself is exact to 6e-8. A
    # threshold keeps half of this distance, which is at least twice the largest error of 600,000 random answers.
    return 1e-6 + 1.6e-5 * confidence * (1 - confidence)


def _out_of_reach(
    wanted: float, precision: npt.NDArray[np.float64], possible: npt.NDArray[np.int64], count: int
) -> SettingsError:
    expected = f"A confidence above which {wanted:.4g} of the answers are correct was expected."
    if not len(possible):
        return SettingsError(
            expected,
            f"At least {MIN_ANSWERS} answers are needed to know, and there are {count} images.",
            "Leave it out, or validate on more images.",
        )
    best = possible[precision[possible] == precision[possible].max()][-1]
    return SettingsError(
        expected,
        f"At most {precision[best]:.4g} of them are, on {best + 1} of {count} images ({(best + 1) / count:.1%}).",
        "Ask for less, or train a better model.",
    )
