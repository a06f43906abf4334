"""Comparing the graph's probabilities with PyTorch's."""

import numpy as np
import pytest

from lensmith.errors import ParityError
from lensmith.exporting.parity import Parity, compare

EXPECTED = np.array([[0.9, 0.1], [0.48, 0.52], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32)
PATHS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
LABELS = ["cat", "dog"]
TRUTH = np.array([0, 1, 1, 0])
ANSWERED = EXPECTED.copy()
ANSWERED[1] = 0.51, 0.49  # correct by PyTorch, wrong by the graph


def test_equal_answers_agree_wholly() -> None:
    parity = compare(EXPECTED, EXPECTED, PATHS, LABELS, TRUTH)
    assert (parity.images, parity.agreement, parity.largest_difference, parity.disagreements) == (4, 1.0, 0.0, ())


def test_an_image_with_another_answer_is_named_with_its_margin() -> None:
    parity = compare(EXPECTED, ANSWERED, PATHS, LABELS, TRUTH)
    (found,) = parity.disagreements
    assert (found.path, found.torch, found.graph) == ("b.jpg", "dog", "cat")
    assert found.margin == pytest.approx(0.04, abs=1e-6)
    assert parity.agreement == 0.75
    assert parity.largest_difference == pytest.approx(0.03, abs=1e-6)


@pytest.mark.parametrize(("tolerance", "agreement"), [(0.02, 0.5), (0.5, 0.9)])
def test_beyond_a_limit_it_is_refused_with_the_numbers(tolerance: float, agreement: float) -> None:
    parity = compare(EXPECTED, ANSWERED, PATHS, LABELS, TRUTH)
    with pytest.raises(ParityError, match=r"0\.03 .* 75\.00%"):
        parity.require(tolerance, agreement)
    parity.require(0.5, 0.5)
    with pytest.raises(ParityError):
        compare(EXPECTED, np.full_like(EXPECTED, np.nan), PATHS, LABELS, TRUTH).require(0.5, 0.5)


def test_what_the_graph_loses_is_counted_against_the_truth_class_by_class() -> None:
    answered = ANSWERED.copy()
    answered[3] = 0.6, 0.4  # the other way round
    parity = compare(EXPECTED, answered, PATHS, LABELS, TRUTH)
    assert parity.drop == 0
    assert parity.per_class_change == (50.0, -50.0)
    assert compare(EXPECTED, answered, PATHS, LABELS, np.array([0, 1, 1, 1])).drop == 50.0
    assert compare(EXPECTED, EXPECTED, PATHS, LABELS, np.array([1, 1, 1, 1])).per_class_change == (None, 0.0)


def test_it_is_read_back_as_it_was_written_and_without_what_came_later() -> None:
    parity = compare(EXPECTED, ANSWERED, PATHS, LABELS, TRUTH)
    stored = parity.as_dict()
    assert Parity.from_dict(stored) == parity
    older = {name: value for name, value in stored.items() if name not in ("drop", "per_class_change")}
    assert Parity.from_dict({**older, "of_a_later_version": 1}).agreement == parity.agreement
