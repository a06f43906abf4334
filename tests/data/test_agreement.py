"""Agreement of annotators: other libraries' figures, and what happens where a figure is not defined."""

import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lensmith.data.agreement import (
    NOTHING_IN_COMMON,
    ONE_CLASS,
    Estimate,
    confusion,
    meaning_of_alpha,
    overall_agreement,
    pair_agreements,
    pair_count,
)
from lensmith.data.ratings import Ratings

CASES = json.loads((Path(__file__).parents[1] / "fixtures/agreement/references.json").read_text(encoding="utf-8"))


def ratings_of(rows: list[list[int]]) -> Ratings:
    """Ratings of a table of pictures × annotators, in which -1 is missing."""
    return Ratings.of(
        [
            (f"{picture:03d}", str(annotator), str(label))
            for picture, row in enumerate(rows)
            for annotator, label in enumerate(row)
            if label >= 0
        ]
    )


@pytest.mark.parametrize("case", CASES)
def test_kappa_and_alpha_equal_those_of_other_libraries(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.data.agreement.DRAWS", 40)
    ratings = ratings_of(case["ratings"])
    found = overall_agreement(ratings)
    assert found.krippendorff_alpha.value == pytest.approx(case["krippendorff_alpha"], abs=1e-9)
    if case["fleiss_kappa"] is not None:
        assert found.fleiss_kappa.value == pytest.approx(case["fleiss_kappa"], abs=1e-9)
        assert found.fleiss_pictures == len(ratings.pictures)
    kappas = {" ".join(pair.annotators): pair.cohen_kappa.value for pair in pair_agreements(ratings)}
    assert kappas == pytest.approx(case["cohen_kappa"], abs=1e-9)


def test_percentage_and_confusion_count_pairs_of_labels_of_one_picture() -> None:
    rows = CASES[3]["ratings"]
    pairs = [
        (row[one], row[other])
        for row in rows
        for one, other in combinations(range(len(row)), 2)
        if min(row[one], row[other]) >= 0
    ]
    ratings = ratings_of(rows)
    assert overall_agreement(ratings).percentage.value == pytest.approx(np.mean([a == b for a, b in pairs]))
    found = confusion(ratings)
    assert (found == found.T).all()
    for a, b in combinations(range(3), 2):
        assert found[a, b] == sum(sorted(pair) == [a, b] for pair in pairs)
    assert np.trace(found) == sum(a == b for a, b in pairs)


def test_intervals_hold_the_figure_are_seeded_and_shrink_with_more_pictures() -> None:
    rows = CASES[1]["ratings"]
    alpha = overall_agreement(ratings_of(rows)).krippendorff_alpha
    assert alpha.value is not None
    assert alpha.interval is not None
    low, high = alpha.interval
    assert low < alpha.value < high
    assert overall_agreement(ratings_of(rows)).krippendorff_alpha == alpha
    assert overall_agreement(ratings_of(rows), seed=1).krippendorff_alpha.interval != alpha.interval
    many = overall_agreement(ratings_of(rows * 9)).krippendorff_alpha.interval
    assert many is not None
    assert (many[1] - many[0]) == pytest.approx((high - low) / 3, rel=0.15)


def test_fleiss_kappa_is_that_of_the_pictures_with_the_usual_number_of_labels() -> None:
    rows = [[*row, -1] for row in CASES[1]["ratings"]]
    more = overall_agreement(ratings_of([*rows, [0, 1, -1, -1], [0, 1, 2, 3], [0, -1, -1, -1]]))
    assert more.fleiss_kappa.value == pytest.approx(CASES[1]["fleiss_kappa"], abs=1e-9)
    assert (more.fleiss_pictures, more.fleiss_labels) == (len(rows), 3)


def test_equal_labels_throughout_have_no_kappa_and_say_so() -> None:
    found = overall_agreement(ratings_of([[1, 1, 1]] * 5))
    assert found.percentage.value == 1
    assert found.krippendorff_alpha.value is None
    assert found.krippendorff_alpha.reason == found.fleiss_kappa.reason == ONE_CLASS
    assert {pair.cohen_kappa.value for pair in pair_agreements(ratings_of([[1, 1]] * 5))} == {None}


@pytest.mark.parametrize("rows", [[[0], [1]], [[0, -1], [-1, 1]], []])
def test_one_annotator_or_nothing_in_common_has_no_figure(rows: list[list[int]]) -> None:
    found = overall_agreement(ratings_of(rows))
    assert found.percentage.value is found.krippendorff_alpha.value is found.fleiss_kappa.value is None
    assert found.krippendorff_alpha.reason == NOTHING_IN_COMMON
    assert list(pair_agreements(ratings_of(rows))) == []


def test_an_annotator_has_one_label_for_a_picture() -> None:
    with pytest.raises(ValueError, match="two labels"):
        Ratings.of([("1.jpg", "anna", "cat"), ("1.jpg", "anna", "dog")])


def test_a_hundred_thousand_labels_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.data.agreement.DRAWS", 20)  # of 1,000, so that it stays a fast test
    generator = np.random.default_rng(0)
    count, classes = 33_334, 50
    truth = generator.integers(classes, size=count)
    label = np.where(generator.random((count, 3)) < 0.8, truth[:, None], generator.integers(classes, size=(count, 3)))
    annotator = np.argsort(generator.random((count, 12)), axis=1)[:, :3]
    ratings = Ratings(
        tuple(map(str, range(count))), tuple(map(str, range(12))), tuple(map(str, range(classes))),
        np.repeat(np.arange(count), 3), annotator.ravel(), label.ravel(),
    )  # fmt: skip
    started = time.perf_counter()
    alpha = overall_agreement(ratings).krippendorff_alpha.value
    assert len(list(pair_agreements(ratings))) == 12 * 11 / 2
    assert time.perf_counter() - started < 5
    assert alpha == pytest.approx(0.64, abs=0.02)


@pytest.mark.parametrize(
    ("value", "interval", "said", "certain"),
    [
        (0.9, (0.85, 0.95), "0.8 or more: the labels are reliable", True),
        (0.82, (0.75, 0.9), "0.8 or more: the labels are reliable", False),
        (0.7, (0.68, 0.75), "tentative", True),
        (0.7, (0.5, 0.9), "tentative", False),
        (0.4, (0.3, 0.5), "not reliable", True),
        (0.4, (-0.2, 0.7), "not reliable", False),
    ],
)
def test_words_say_what_an_alpha_means_and_whether_its_interval_allows_it(
    value: float, interval: tuple[float, float], said: str, certain: bool
) -> None:
    words = meaning_of_alpha(Estimate(value, interval))
    assert said in words
    assert ("not certain" not in words) == certain


def test_of_a_crowds_pairs_those_with_most_pictures_in_common_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.data.agreement.MOST_PAIRS", 2)
    ratings = ratings_of(
        [[0, 1, -1, -1], [0, 0, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1], [-1, -1, 0, 0], [-1, -1, 1, 0]]
    )
    assert pair_count(ratings) == 4
    assert [(pair.annotators, pair.images) for pair in pair_agreements(ratings)] == [(("0", "1"), 2), (("2", "3"), 2)]
