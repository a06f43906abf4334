"""How sure the numbers are."""

import numpy as np
import pytest

from lensmith.evaluation.metrics import bootstrap, measure


def answered(rng: np.random.Generator, images: int, accuracy: float, classes: int = 3) -> np.ndarray:
    """A confusion matrix, int64 (C, C)."""
    truth = rng.integers(0, classes, images)
    wrong = (truth + rng.integers(1, classes, images)) % classes
    predicted = np.where(rng.random(images) < accuracy, truth, wrong)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    return confusion


@pytest.mark.slow
@pytest.mark.parametrize(("images", "accuracy"), [(300, 0.8), (60, 0.97)])
def test_intervals_of_means_over_classes_hold_the_truth_in_about_95_cases_of_100(images: int, accuracy: float) -> None:
    rng = np.random.default_rng(0)
    held = {"f1_macro": 0, "balanced_accuracy": 0}
    for _ in range(100):
        for name, (low, high) in bootstrap(answered(rng, images, accuracy)).items():
            held[name] += low <= accuracy <= high
    assert min(held.values()) >= 90


def test_without_a_mistake_it_is_not_certain_that_there_will_be_none() -> None:
    for low, high in bootstrap(np.diag([18, 18, 18])).values():
        assert 0.85 < low < 0.95
        assert high == 1


def test_the_value_lies_in_its_interval_which_narrows_with_more_images() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for images in (100, 10_000):
        confusion = answered(rng, images, 0.7)
        truth = np.repeat(np.arange(3), confusion.sum(axis=1))
        predicted = np.concatenate([np.repeat(np.arange(3), row) for row in confusion])
        found = measure(truth, np.eye(3, dtype=np.float32)[predicted])
        for name, (low, high) in bootstrap(confusion).items():
            assert low < getattr(found, name) < high
            widths.append(high - low)
    assert widths[2] < widths[0] / 5


def test_the_same_answers_give_the_same_interval() -> None:
    confusion = answered(np.random.default_rng(2), 50, 0.9)
    assert bootstrap(confusion) == bootstrap(confusion) != bootstrap(confusion, seed=1)


def test_a_class_without_images_is_left_out() -> None:
    confusion = np.array([[9, 0, 1], [0, 0, 0], [2, 0, 8]])
    assert bootstrap(confusion)["balanced_accuracy"][1] > 0.9
    assert bootstrap(np.array([[9, 1], [0, 0]]))["balanced_accuracy"][0] > 0.5
