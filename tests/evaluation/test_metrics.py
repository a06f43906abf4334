"""The numbers, against hand-made cases and scikit-learn's own."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from lensmith.core.stats import wilson
from lensmith.evaluation.metrics import Metrics, calibrate, measure


def from_answers(labels: list[int], predicted: list[int], classes: int, confidence: float = 0.8) -> Metrics:
    """Metrics of answers that are all given with one confidence."""
    probabilities = np.full((len(labels), classes), (1 - confidence) / (classes - 1), dtype=np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    return measure(np.array(labels), probabilities)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of any size, ties and certainties among them."""
    count, classes = draw(st.integers(1, 30)), draw(st.integers(2, 8))
    labels = draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    weights = draw(arrays(np.int64, (count, classes), elements=st.integers(0, 6))).astype(np.float32)
    weights[:, 0] += weights.sum(axis=1) == 0
    return labels, weights / weights.sum(axis=1, keepdims=True)


def test_a_small_case_by_hand() -> None:
    found = from_answers([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0], classes=3)
    assert found.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.accuracy_interval == wilson(4, 6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert [scores.precision for scores in found.per_class] == [pytest.approx(2 / 3), pytest.approx(2 / 3), None]
    assert [scores.recall for scores in found.per_class] == [pytest.approx(2 / 3), 1.0, 0.0]
    assert [scores.f1 for scores in found.per_class] == [pytest.approx(2 / 3), pytest.approx(0.8), 0.0]
    assert [scores.support for scores in found.per_class] == [3, 2, 1]
    assert found.f1_macro == pytest.approx((2 / 3 + 0.8) / 3)
    assert found.f1_weighted == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)
    assert found.log_loss == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6, abs=1e-6)


def test_a_class_without_images_counts_in_no_average() -> None:
    found = from_answers([0, 0, 1, 1], [0, 0, 1, 2], classes=4)
    assert found.absent == (2, 3)
    assert found.balanced_accuracy == pytest.approx(0.75)
    assert found.f1_macro == pytest.approx((1 + 2 / 3) / 2)
    assert found.confusion[1].tolist() == [0, 1, 1, 0]
    taken_for, never = found.per_class[2], found.per_class[3]
    assert (taken_for.precision, taken_for.recall, taken_for.f1) == (0.0, None, 0.0)
    assert (never.precision, never.recall, never.f1) == (None, None, None)


def test_top_k_is_five_or_the_number_of_classes() -> None:
    row = np.array([[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]], dtype=np.float32)
    assert [measure(np.array([label]), row).top_k_accuracy for label in (0, 4, 5)] == [1.0, 1.0, 0.0]
    assert measure(np.array([0]), row).headline()["top5_accuracy"] == 1.0
    assert from_answers([0, 1], [1, 0], classes=2).headline()["top2_accuracy"] == 1.0
    ties = np.full((1, 8), 0.125, dtype=np.float32)  # are broken by class index
    assert [measure(np.array([label]), ties).top_k_accuracy for label in range(8)] == [1.0] * 5 + [0.0] * 3


def test_calibration_by_hand() -> None:
    right = np.array([True, False, True, True])
    found = calibrate(right, np.array([0.55, 0.55, 0.95, 0.95], dtype=np.float32), bins=10)
    assert found.counts == (0, 0, 0, 0, 0, 2, 0, 0, 0, 2)
    assert (found.accuracy[5], found.accuracy[9], found.accuracy[0]) == (0.5, 1.0, None)
    assert found.error == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
    assert calibrate(np.array([True, True]), np.array([0.0, 1.0], dtype=np.float32), bins=4).counts == (1, 0, 0, 1)


def test_certain_and_right_is_perfect_everywhere() -> None:
    found = from_answers([0, 1, 2, 1], [0, 1, 2, 1], classes=3, confidence=1.0)
    assert found.accuracy == found.balanced_accuracy == found.f1_macro == found.f1_weighted == 1.0
    assert found.calibration.error == 0.0
    assert found.log_loss == pytest.approx(0.0, abs=1e-6)
    assert math.isfinite(from_answers([0], [1], classes=2, confidence=1.0).log_loss)


@given(answers())
def test_the_numbers_are_scikit_learn_s(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = case
    found = measure(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found.f1_macro == pytest.approx(sk.f1_score(labels, predicted, labels=present, average="macro"))
    assert found.f1_weighted == pytest.approx(sk.f1_score(labels, predicted, labels=present, average="weighted"))
    recall = sk.recall_score(labels, predicted, labels=present, average="macro")
    assert found.balanced_accuracy == pytest.approx(recall)


@given(answers())
def test_what_must_always_hold(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = case
    found = measure(labels, probabilities)
    low, high = found.accuracy_interval
    assert 0 <= low <= found.accuracy + 1e-12
    assert found.accuracy - 1e-12 <= high <= 1
    assert found.top_k_accuracy >= found.accuracy
    assert 0 <= found.calibration.error <= 1
    assert sum(found.calibration.counts) == found.images == found.confusion.sum() == len(labels)
    assert found.confusion.sum(axis=1).tolist() == [scores.support for scores in found.per_class]
    shuffled = np.random.default_rng(0).permutation(len(labels))
    again = measure(labels[shuffled], probabilities[shuffled])
    assert (again.accuracy, again.f1_macro) == (found.accuracy, pytest.approx(found.f1_macro))
    json.dumps(found.as_dict(), allow_nan=False)  # it is plain


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([], np.zeros((0, 3))),
        ([0, 1], np.full((1, 2), 0.5)),
        ([2], np.full((1, 2), 0.5)),
        ([-1], np.full((1, 2), 0.5)),
        ([0.5], np.full((1, 2), 0.5)),
        ([0], np.array([[math.nan, 0.5]])),
        ([0], np.array([[3.0, -2.0]])),
    ],
)
def test_what_are_no_labels_and_probabilities_is_refused(labels: list[float], probabilities: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        measure(np.array(labels), probabilities.astype(np.float32))
