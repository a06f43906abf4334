"""Confidence that can be believed: a temperature fitted to labelled images, and the confidence from which to answer.

Shapes: N images, C classes. Probabilities are a bundle's answers, float32 (N, C), each row summing to 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from lensmith.bundle.format import Abstention
from lensmith.errors import SettingsError
from lensmith.evaluation.metrics import Ints, measure, refuse_misfits
from lensmith.imaging.preprocessing import Tensor

LEAST_IMAGES = 50
"""Fewer say nothing about a temperature: at 20 images, leaving it at 1 lost less than any fit that was tried."""
SPREAD = math.log(2.0)
"""Standard deviation of ln T that is expected before an image is seen: two sets in three want a T of 1/2 to 2."""
BOUNDS = (0.1, 10.0)
"""Of a temperature; networks want 0.5 to 4."""
LEAST_ANSWERS = 10
"""Fewer answers prove no share of right ones."""

_LEAST_LOG = np.float32(math.log(np.finfo(np.float32).smallest_subnormal))


@dataclass(frozen=True)
class Scaling:
    """A temperature, and what it does to confidence on images that it was not fitted to.

    Attributes:
        temperature: T, by which logits are divided; above 1 the confidence falls, below 1 it rises.
        error_before: expected calibration error at T = 1, 0..1 (`metrics.Calibration`).
        error_after: the same with the temperature; each half of the images at the T that the other half gave.
        log_loss_before: mean −ln of the true class's probability at T = 1.
        log_loss_after: the same with the temperature, half by half.
        images: N.
    """

    temperature: float
    error_before: float
    error_after: float
    log_loss_before: float
    log_loss_after: float
    images: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as `calibration` in bundle.json holds them."""
        return asdict(self)


@dataclass(frozen=True)
class Answered:
    """What a threshold of confidence does on labelled images.

    Attributes:
        images: N.
        given: answers with at least that confidence.
        right: those of them that are right.
    """

    images: int
    given: int
    right: int

    @property
    def coverage(self) -> float:
        """Share of images that get an answer, 0..1."""
        return self.given / self.images

    @property
    def precision(self) -> float | None:
        """Share of right answers among the given ones, 0..1; None if none was given."""
        return self.right / self.given if self.given else None


def scale(truth: Ints, probabilities: Tensor) -> Scaling:
    """Fit a temperature, and measure it on images that it was not fitted to.

    The images are halved, class by class in turn; each half is judged at the temperature that the other half gives.
    Where that raises the log loss, the temperature stays 1.

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C) at T = 1.

    Raises:
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    before = measure(truth, probabilities)
    kept = Scaling(
        1.0, before.calibration.error, before.calibration.error, before.log_loss, before.log_loss, before.images
    )
    if before.images < LEAST_IMAGES:
        return kept
    odd = np.empty(before.images, dtype=np.bool_)
    odd[np.argsort(truth, kind="stable")] = np.arange(before.images) % 2 == 1
    crossed = np.empty_like(probabilities)
    for half in (odd, ~odd):
        crossed[half] = at_temperature(probabilities[half], _fit(truth[~half], probabilities[~half]))
    after = measure(truth, crossed)
    if after.log_loss >= before.log_loss:
        return kept
    temperature = fit_temperature(truth, probabilities)
    return Scaling(
        temperature, kept.error_before, after.calibration.error, before.log_loss, after.log_loss, before.images
    )


def fit_temperature(truth: Ints, probabilities: Tensor) -> float:
    """The temperature with which the labels are likeliest.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks", with a log-normal prior around 1; over T

        mean of −ln softmax(ln p / T)[truth]  +  (ln T)² / (2 N SPREAD²)

    is minimised. Without the prior a small set of right answers drives T to zero, and every answer to certainty.
    Platt's smoothed targets (1999) prevent that too, but put the confidence of a network that is right on all of N
    images at (N + 1) / (N + 2), however well it was calibrated.

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C) at T = 1.

    Returns:
        T within BOUNDS; 1.0 for fewer than LEAST_IMAGES.

    Raises:
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    refuse_misfits(truth, probabilities)
    return _fit(truth, probabilities) if len(truth) >= LEAST_IMAGES else 1.0


def at_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """What the engine answers at another temperature: softmax(logits / T), from softmax(logits).

    Args:
        probabilities: float32 (N, C) at T = 1.
        temperature: T > 0.

    Returns:
        float32 (N, C). A probability that was rounded to 0 counts as the smallest there is, 1e-45.
    """
    exponentials = np.exp(_centred_logs(probabilities) / np.float32(temperature))
    result: Tensor = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def threshold_for(truth: Ints, probabilities: Tensor, wanted: float) -> Abstention:
    """The least confidence from which on a wanted share of the answers is right, on these images.

    It lies half-way between two neighbouring confidences that rounding cannot bring together, so each of these images
    falls on the same side of it when it comes again. 0 where every answer can be given.

    Args:
        truth: int64 (N,), 0..C-1.
        probabilities: float32 (N, C), at the temperature at which the bundle will answer.
        wanted: share of right answers among the given ones, 0 < wanted ≤ 1.

    Raises:
        SettingsError: no threshold reaches it with LEAST_ANSWERS answers; says what can be reached.
        ValueError: other shapes, labels out of range, or values that are not probabilities.
    """
    refuse_misfits(truth, probabilities)
    if not 0 < wanted <= 1:
        raise SettingsError(
            "A share of right answers above 0 and up to 1 was expected.", f"{wanted:g} arrived.", "Say 0.95, say."
        )
    right, confidence = _right_and_confidence(truth, probabilities)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order].astype(np.float64)
    count = len(order)
    given = np.arange(1, count + 1)
    precision = right[order].cumsum() / given
    # Below the least confident image nothing more can be lost.
    below = np.append(sorted_confidence[1:], -1.0)
    possible = np.flatnonzero((sorted_confidence - below > _blur(sorted_confidence)) & (given >= LEAST_ANSWERS))
    reached = possible[precision[possible] >= wanted - 1e-12]
    if not len(reached):
        raise _out_of_reach(wanted, precision, possible, count)
    last = int(reached[-1])
    return Abstention(
        threshold=0.0 if last == count - 1 else float(sorted_confidence[last] + below[last]) / 2,
        wanted=wanted,
        precision=float(precision[last]),
        coverage=(last + 1) / count,
    )


def answered_at(truth: Ints, probabilities: Tensor, threshold: float) -> Answered:
    """Count the answers that a threshold of confidence lets through, as `Classifier.rank` applies it.

    Args:
        truth: int64 (N,), N ≥ 1.
        probabilities: float32 (N, C).
        threshold: least confidence of an answer that is given, 0..1.
    """
    right, confidence = _right_and_confidence(truth, probabilities)
    given = confidence.astype(np.float64) >= threshold
    return Answered(len(truth), int(given.sum()), int((given & right).sum()))


def _fit(truth: Ints, probabilities: Tensor) -> float:
    logs = _centred_logs(probabilities)
    of_truth = logs[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        factor = np.float32(math.exp(-log_temperature))
        likelihood = np.log(np.exp(logs * factor).sum(axis=1)) - of_truth * factor
        return float(likelihood.mean(dtype=np.float64)) + log_temperature**2 / (2 * len(truth) * SPREAD**2)

    bounds = (math.log(BOUNDS[0]), math.log(BOUNDS[1]))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)


def _centred_logs(probabilities: Tensor) -> Tensor:
    """float32 (N, C): logits, up to a constant in each row that makes the largest 0."""
    with np.errstate(divide="ignore"):
        logs: Tensor = np.maximum(np.log(probabilities, dtype=np.float32), _LEAST_LOG)
    centred: Tensor = logs - logs.max(axis=1, keepdims=True)
    return centred


def _right_and_confidence(truth: Ints, probabilities: Tensor) -> tuple[npt.NDArray[np.bool_], Tensor]:
    confidence: Tensor = probabilities.max(axis=1)
    return probabilities.argmax(axis=1) == truth, confidence


def _blur(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far apart confidences must be, so that float32 keeps them apart in whatever order it is computed with."""
    # A logit of 30 is exact to 1e-6, and moves a probability p by p (1 - p) times that; p itself is exact to 6e-8. The
    # half of this is the distance that a threshold keeps, at least twice of what 600,000 random answers came to.
    return 1e-6 + 1.6e-5 * confidence * (1 - confidence)


def _out_of_reach(
    wanted: float, precision: npt.NDArray[np.float64], possible: npt.NDArray[np.int64], count: int
) -> SettingsError:
    expected = f"A confidence from which on {wanted:.4g} of the answers are right was expected."
    if not len(possible):
        return SettingsError(
            expected,
            f"At least {LEAST_ANSWERS} answers are needed to tell, and there are {count} images.",
            "Leave it out, or validate on more images.",
        )
    best = possible[precision[possible] == precision[possible].max()][-1]
    return SettingsError(
        expected,
        f"At most {precision[best]:.4g} of them are, on {best + 1} of {count} images ({(best + 1) / count:.1%}).",
        "Ask for less, or train a better model.",
    )
