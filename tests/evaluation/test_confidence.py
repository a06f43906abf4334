"""Temperatures and thresholds, on answers whose right temperature is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from lensmith.bundle.format import Abstention
from lensmith.errors import SettingsError
from lensmith.evaluation.confidence import (
    BOUNDS,
    MIN_ANSWERS,
    MIN_IMAGES,
    answered_at,
    at_temperature,
    fit_temperature,
    least_smoothing,
    least_temperature,
    scale,
    scaled,
    supported_confidence,
    threshold_for,
)
from lensmith.evaluation.metrics import calibrate
from lensmith.inference.engine import FakeEngine

Answers = tuple[np.ndarray, np.ndarray]


def answers(count: int, temperature: float, classes: int = 10, sure: float = 4.0, seed: int = 0) -> Answers:
    """Labels, and float32 logits that are right at `temperature`: labels are drawn by their softmax there."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    logits[np.arange(count), random.integers(0, classes, count)] += sure
    drawn = softmax(logits, axis=1).cumsum(axis=1) > random.random((count, 1))
    return drawn.argmax(axis=1), (logits * temperature).astype(np.float32)


def engine_at(logits: np.ndarray, temperature: float) -> np.ndarray:
    """What an engine answers whose graph gives these logits."""
    return FakeEngine(lambda _: logits, temperature).run(np.zeros((len(logits), 3, 1, 1), np.float32))


def certain(count: int, confidence: float, classes: int = 3) -> Answers:
    """Right answers only, all with one confidence."""
    truth = np.arange(count) % classes
    probabilities = np.full((count, classes), (1 - confidence) / (classes - 1), np.float32)
    probabilities[np.arange(count), truth] = confidence
    return truth, probabilities


# Temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_the_temperature_at_which_labels_were_drawn_is_found(temperature: float) -> None:
    truth, logits = answers(4000, temperature)
    assert fit_temperature(truth, engine_at(logits, 1.0)) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("count", [MIN_IMAGES, 100, 1000])
@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.9999, 1.0])
def test_right_answers_alone_do_not_drive_the_temperature_to_its_bound(count: int, confidence: float) -> None:
    truth, probabilities = certain(count, confidence)
    found = fit_temperature(truth, probabilities)
    assert 1.2 * BOUNDS[0] < found <= 1.001
    if confidence <= 0.9:  # more than that many images can prove is not claimed
        assert at_temperature(probabilities, found).max() < 1 - 1 / (5 * count)


@pytest.mark.parametrize(("confidence", "most"), [(1 - 1e-6, BOUNDS[1] / 2), (1.0, BOUNDS[1])])
def test_one_very_confident_mistake_is_no_infinite_loss(confidence: float, most: float) -> None:
    truth, probabilities = certain(60, confidence)
    truth[0] = 1
    assert 1 < fit_temperature(truth, probabilities) <= most


def test_too_few_images_leave_the_temperature_at_one() -> None:
    truth, logits = answers(MIN_IMAGES, 3.0)
    probabilities = engine_at(logits, 1.0)
    assert scale(truth, probabilities).temperature != 1.0
    assert scale(truth[1:], probabilities[1:]).temperature == 1.0


@given(st.floats(*BOUNDS), st.floats(0, 60), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_answers_at_a_temperature_are_the_engines_own(
    temperature: float, spread: float, classes: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 1, (20, classes)).astype(np.float32)
    logits *= np.float32(spread) / np.abs(logits).max()
    found = at_temperature(engine_at(logits, 1.0), temperature)
    assert found.dtype == np.float32
    # Logits of up to 60 are exact to 4e-6, and what was rounded to zero comes back as e^(-103 / T) at most.
    allowed = 2e-5 / temperature + classes * math.exp(-103 / temperature)
    np.testing.assert_allclose(found, engine_at(logits, temperature), atol=allowed)


def test_zeros_and_ones_stay_probabilities_at_any_temperature() -> None:
    probabilities = np.array([[1, 0, 0], [0.5, 0.5, 0], [1e-45, 0, 1]], np.float32)
    for temperature in (*BOUNDS, 1.0):
        found = at_temperature(probabilities, temperature)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
        assert found.argmax(axis=1).tolist() == [0, 0, 2]


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_scaling_brings_the_errors_down_and_says_by_how_much(temperature: float) -> None:
    truth, logits = answers(2000, temperature)
    probabilities = engine_at(logits, 1.0)
    found = scale(truth, probabilities)
    assert found.temperature == fit_temperature(truth, probabilities)
    assert found.error_before == pytest.approx(
        calibrate(probabilities.argmax(axis=1) == truth, probabilities.max(axis=1)).error
    )
    assert found.error_after < 0.5 * found.error_before
    assert found.log_loss_after < found.log_loss_before
    assert found.images == 2000


def test_the_errors_after_are_of_images_that_the_temperature_was_not_fitted_to() -> None:
    truth, logits = answers(60, 2.0, seed=5)
    probabilities = engine_at(logits, 1.0)
    found = scale(truth, probabilities)
    fitted_and_judged = at_temperature(probabilities, found.temperature)[np.arange(60), truth]
    assert found.log_loss_after > -np.log(fitted_and_judged).mean()


def test_a_temperature_that_does_not_help_elsewhere_is_not_taken() -> None:
    kept = 0
    for seed in range(20):
        truth, logits = answers(80, 1.0, seed=seed)  # already right
        found = scale(truth, engine_at(logits, 1.0))
        smoothed_alone = scaled(engine_at(logits, 1.0), 1.0, found.smoothing)[np.arange(80), truth]
        assert found.log_loss_after <= -np.log(smoothed_alone).mean() + 1e-6
        kept += found.temperature == 1.0
    assert kept > 5


def test_each_half_holds_half_of_each_class() -> None:
    # All of one class, then all of the other, as files lie in folders. Those of the first are often taken for the
    # second; so halves cut in the middle would want opposite temperatures, and neither would help the other.
    truth = np.repeat([0, 1], 200)
    answered = np.where((truth == 0) & (np.arange(400) % 5 > 1), 0, 1)
    probabilities = np.where(np.arange(2) == answered[:, None], 0.9, 0.1).astype(np.float32)
    found = scale(truth, probabilities)
    assert found.temperature > 1.2
    assert found.error_after < 0.01 < found.error_before


@pytest.mark.parametrize(("count", "classes", "most"), [(9, 3, 0.95), (3, 2, 0.875), (999, 40, 0.9995), (1, 2, 0.75)])
def test_no_answer_at_all_is_more_certain_than_so_many_images_can_support(
    count: int, classes: int, most: float
) -> None:
    stranger = np.eye(classes, dtype=np.float32)[:1]  # its logits are far beyond those of the images
    found = scaled(stranger, 1.0, least_smoothing(count, classes))
    assert found.max() == pytest.approx(most, abs=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found.argmax() == 0


def test_what_is_no_pair_of_labels_and_probabilities_is_refused() -> None:
    truth, probabilities = certain(100, 0.9)
    for call in (scale, fit_temperature, lambda *pair: threshold_for(*pair, 0.9)):
        with pytest.raises(ValueError, match="expected"):
            call(truth[:-1], probabilities)
        with pytest.raises(ValueError, match="expected"):
            call(truth + 1, probabilities)


@pytest.mark.parametrize("count", [9, MIN_IMAGES, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.9999, 1.0])
def test_no_confidence_is_claimed_that_so_many_images_cannot_support(count: int, confidence: float) -> None:
    truth, probabilities = certain(count, confidence)
    found = scale(truth, probabilities)
    claimed = scaled(probabilities, found.temperature, found.smoothing).max(axis=1).mean()
    assert claimed <= supported_confidence(count) + 1e-5
    if confidence > supported_confidence(count):  # it falls to what is supported, and no further
        assert claimed == pytest.approx(supported_confidence(count), abs=1e-4)
        assert found.log_loss_after > found.log_loss_before
        assert found.error_after == pytest.approx(1 - claimed, abs=1e-4)
    elif count < MIN_IMAGES:
        assert found.temperature == 1.0


def test_the_least_temperature_knows_no_labels_and_has_an_end() -> None:
    assert supported_confidence(98) == 0.99
    _, logits = answers(900, 1.0)
    assert least_temperature(engine_at(logits, 1.0)) < 1  # wrong answers do not matter to it, confidence does
    assert least_temperature(np.full((40, 4), 0.25, np.float32)) == BOUNDS[0]


# Threshold


def two_classes(confidence: list[float], right: list[bool]) -> Answers:
    """Labels and probabilities of answers that are all class 0."""
    first = np.array(confidence, np.float32)
    return np.where(right, 0, 1), np.stack([first, 1 - first], axis=1)


def test_the_threshold_lies_half_way_below_the_last_answer_that_is_given() -> None:
    confidence = [0.99 - 0.01 * i for i in range(20)]
    right = [True] * 15 + [False] * 5
    found = threshold_for(*two_classes(confidence, right), 15 / 16)
    assert found.threshold == pytest.approx((confidence[15] + confidence[16]) / 2)
    assert (found.wanted, found.precision, found.coverage) == (15 / 16, 15 / 16, 16 / 20)
    assert threshold_for(*two_classes(confidence, right), 1.0).coverage == 15 / 20


def test_the_least_threshold_is_taken_where_several_will_do() -> None:
    confidence = [0.99 - 0.01 * i for i in range(30)]
    right = [True] * 10 + [False] * 2 + [True] * 18
    assert threshold_for(*two_classes(confidence, right), 0.9).coverage == 1.0
    assert threshold_for(*two_classes(confidence, right), 0.95).coverage == 10 / 30


@pytest.mark.parametrize("confidence", [0.7, 1.0])
def test_where_all_answers_can_be_given_only_less_certain_ones_are_held_back(confidence: float) -> None:
    truth, probabilities = certain(30, confidence)
    found = threshold_for(truth, probabilities, 0.9)
    assert found == Abstention(threshold=found.threshold, wanted=0.9, precision=1.0, coverage=1.0, answers=30)
    assert confidence - 1e-5 < found.threshold < float(probabilities.max(axis=1).min())
    assert answered_at(truth, probabilities, found.threshold).coverage == 1.0


@pytest.mark.parametrize(
    ("images", "wanted", "said"), [(18, 0.99, "18 answers support 95.0% at most, and 99% were asked for"),
    (18, 0.95, ""), (1200, 0.999, ""), (30, 1.0, "30 answers support 96.9% at most, and 100% were asked for")],
)  # fmt: skip
def test_a_precision_that_so_few_answers_cannot_support_is_said(images: int, wanted: float, said: str) -> None:
    assert threshold_for(*certain(images, 0.9), wanted).doubt == said
    assert Abstention(threshold=0.9, wanted=wanted, precision=1.0, coverage=1.0).doubt == ""  # of earlier versions


def test_nothing_is_answered_above_all_confidences() -> None:
    nothing = answered_at(*certain(30, 0.7), 0.75)
    assert (nothing.coverage, nothing.precision) == (0.0, None)


def test_answers_with_one_confidence_are_given_all_or_none() -> None:
    confidence = [0.9] * 12 + [0.8] * 12 + [0.7] * 6
    right = [True] * 12 + ([True] * 9 + [False] * 3) + [False] * 6
    found = threshold_for(*two_classes(confidence, right), 0.95)
    assert found.coverage == 12 / 30
    assert found.threshold == pytest.approx(0.85)
    # 13 of them with precision 1 are in the list too, but a threshold cannot tell the 13th from its equals.
    assert threshold_for(*two_classes(confidence, right), 0.875).coverage == 24 / 30


def test_confidences_that_rounding_may_bring_together_count_as_one() -> None:
    close = float(np.nextafter(np.float32(0.9), np.float32(0)))
    truth, probabilities = two_classes([0.9] * 12 + [close] * 6 + [0.6] * 3, [True] * 12 + [False] * 9)
    with pytest.raises(SettingsError, match=r"0\.6667 .* 18 of 21 images"):
        threshold_for(truth, probabilities, 0.95)


@pytest.mark.parametrize("right", [[True] * 9 + [False] * 11, [False] * 20])
def test_what_cannot_be_reached_is_said_with_what_can(right: list[bool]) -> None:
    confidence = [0.99 - 0.01 * i for i in range(20)]
    with pytest.raises(SettingsError, match=r"0\.95 .* \d+ of 20 images"):
        threshold_for(*two_classes(confidence, right), 0.95)


def test_a_handful_of_answers_proves_nothing() -> None:
    few = MIN_ANSWERS - 1
    with pytest.raises(SettingsError, match=f"{MIN_ANSWERS} answers .* {few} images"):
        threshold_for(*certain(few, 0.9), 0.5)
    assert threshold_for(*certain(few + 1, 0.9), 1.0).coverage == 1.0


@pytest.mark.parametrize("wanted", [0.0, -0.5, 1.01, 95, math.nan])
def test_a_share_that_is_none_is_refused(wanted: float) -> None:
    with pytest.raises(SettingsError, match=f"{wanted:g}"):
        threshold_for(*certain(30, 0.9), wanted)


@given(
    st.floats(0.3, 5), st.floats(0.3, 5), st.floats(0.5, 1), st.integers(2, 10), st.floats(0, 12),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_same_images_fall_on_the_same_side_when_the_bundle_answers(
    sharpness: float, temperature: float, wanted: float, classes: int, sure: float, seed: int
) -> None:
    truth, logits = answers(300, sharpness, classes, sure, seed)
    scaled = at_temperature(engine_at(logits, 1.0), temperature)
    try:
        found = threshold_for(truth, scaled, wanted)
    except SettingsError:
        return
    # Computed in another order, and read back from JSON, as float32 is.
    served = engine_at(logits, temperature)
    threshold = Abstention.model_validate_json(found.model_dump_json()).threshold
    offline, online = (answered_at(truth, probabilities, threshold) for probabilities in (scaled, served))
    assert offline == online
    assert (offline.coverage, offline.precision) == (found.coverage, found.precision)
    assert found.precision >= wanted - 1e-12
    assert ((served.max(axis=1) >= threshold) == (scaled.max(axis=1) >= threshold)).all()
