"""Consensus of annotators: majority, Dawid and Skene, and what stays contested."""

import math
import time
from collections import Counter, defaultdict

import numpy as np
import pytest

from lensmith.data.annotation import Annotation
from lensmith.data.consensus import UNNAMED, majority_of_others, resolve, votes_of
from lensmith.data.dawid_skene import PSEUDO_COUNT, dawid_skene
from lensmith.data.ratings import Ratings
from lensmith.errors import SettingsError


def given(*rows: tuple[str, str, str]) -> list[Annotation]:
    """Annotations of (path, annotator, label)."""
    return [Annotation(path, label, annotator=annotator) for path, annotator, label in rows]


def crowd(pictures: int, skills: list[float], classes: int = 4, seed: int = 0) -> tuple[np.ndarray, list[Annotation]]:
    """True classes, and annotations by annotators who are right with these probabilities."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(classes, size=pictures)
    wrong = (truth[:, None] + generator.integers(1, classes, size=(pictures, len(skills)))) % classes
    labels = np.where(generator.random((pictures, len(skills))) < skills, truth[:, None], wrong)
    return truth, [
        Annotation(f"{picture:05d}", str(label), annotator=f"annotator {annotator}")
        for picture, row in enumerate(labels)
        for annotator, label in enumerate(row)
    ]


def test_the_majority_wins_and_ties_are_contested_with_their_votes() -> None:
    found = resolve(
        given(("1", "a", "cat"), ("1", "b", "cat"), ("1", "c", "dog"), ("2", "a", "cat"), ("2", "b", "dog"),
              ("3", "a", "dog"))
    )  # fmt: skip
    assert [(each.path, each.label, each.annotator) for each in found.annotations] == [
        ("1", "cat", ""),
        ("3", "dog", ""),
    ]
    (contested,) = found.contested
    assert (contested.path, contested.votes) == ("2", {"cat": 1, "dog": 1})
    assert contested.reason == "contested: cat by 1, dog by 1"


def test_one_label_for_each_picture_stays_as_it_is() -> None:
    found = resolve(given(("2", "a", "cat "), ("1", "b", "dog")))
    assert [(each.path, each.label) for each in found.annotations] == [("1", "dog"), ("2", "cat ")]
    assert (found.contested, found.notes, found.warnings) == ((), (), ())


def test_names_that_differ_by_case_and_blanks_are_one_annotator() -> None:
    votes = votes_of(given(("1", "Anna", "cat"), ("2", " anna ", "dog"), ("2", "Anna", "dog"), ("1", "", "cat")))
    assert votes.ratings.annotators == (UNNAMED, "Anna")
    assert votes.spellings == {"Anna": ("anna",)}
    assert votes.repeated == 1
    notes = resolve(given(("1", "Anna", "cat"), ("2", "anna", "dog"), ("2", "bert", "dog"))).notes
    assert any("one annotator's name: 'Anna' and 'anna'" in note for note in notes)


def test_two_labels_of_one_annotator_for_a_picture_count_as_none_and_that_is_said() -> None:
    found = resolve(
        given(("1", "a", "cat"), ("1", "a", "dog"), ("1", "b", "dog"), ("2", "a", "cat"), ("2", "a", "dog"))
    )
    assert [(each.path, each.label) for each in found.annotations] == [("1", "dog")]
    assert [(each.path, each.votes, each.reason) for each in found.contested] == [
        ("2", {}, "named more than once, as cat and as dog")
    ]
    assert any("several labels, none of which counts: 2 (1, 2)" in warning for warning in found.warnings)


def test_the_same_label_twice_of_one_annotator_counts_once() -> None:
    found = resolve(given(("1", "a", "cat"), ("1", "a", " cat"), ("1", "b", "dog")))
    assert [each.path for each in found.contested] == ["1"]


def test_the_majority_of_the_others_is_that_of_a_slow_count() -> None:
    _, annotations = crowd(120, [0.6, 0.5, 0.4, 0.4, 0.3], classes=5)
    generator = np.random.default_rng(1)
    ratings = votes_of([each for each in annotations if generator.random() < 0.8]).ratings
    found = majority_of_others(ratings)
    labels = defaultdict(list)
    for picture, label in zip(ratings.picture, ratings.label, strict=True):
        labels[picture].append(label)
    for picture, label, winner in zip(ratings.picture, ratings.label, found, strict=True):
        others = Counter(labels[picture])
        others[label] -= 1
        (best, count), *rest = Counter({key: n for key, n in others.items() if n}).most_common() or [(-1, 0)]
        assert winner == (best if count and all(n < count for _, n in rest) else -1)


def test_dawid_and_skene_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.data.dawid_skene.ITERATIONS", 30)
    _, annotations = crowd(40, [0.9, 0.6, 0.7], classes=3)
    ratings = votes_of(annotations).ratings
    table = np.full((40, 3), -1)
    table[ratings.picture, ratings.annotator] = ratings.label
    truth = np.array([[np.mean(row == c) for c in range(3)] for row in table])
    for _ in range(30):
        rates = np.full((3, 3, 3), PSEUDO_COUNT)
        for picture, row in enumerate(table):
            for annotator, label in enumerate(row):
                rates[annotator, :, label] += truth[picture]
        rates /= rates.sum(axis=2, keepdims=True)
        shares = truth.mean(axis=0)
        truth = np.array([
            [shares[c] * math.prod(rates[a, c, label] for a, label in enumerate(row)) for c in range(3)]
            for row in table
        ])  # fmt: skip
        truth /= truth.sum(axis=1, keepdims=True)
    assert dawid_skene(ratings).probabilities == pytest.approx(truth, abs=1e-9)


def test_dawid_and_skene_trust_the_reliable_against_a_majority_of_the_careless() -> None:
    skills = [0.97, 0.95, 0.4, 0.35, 0.3, 0.35, 0.4]
    truth, annotations = crowd(600, skills)

    def share_right(method: str) -> float:
        found = resolve(annotations, method).annotations  # type: ignore[arg-type]
        return float(np.mean([int(each.label) == truth[int(each.path)] for each in found]) * len(found) / len(truth))

    assert share_right("majority") < 0.85
    assert share_right("dawid-skene") > 0.95
    assert dawid_skene(votes_of(annotations).ratings).accuracy == pytest.approx(skills, abs=0.06)


def test_dawid_and_skene_refuse_more_than_memory_holds() -> None:
    numbers = np.arange(20_000)
    names = tuple(map(str, numbers))
    with pytest.raises(SettingsError, match="--consensus majority"):
        dawid_skene(Ratings(names, names, names, numbers, numbers, numbers))


def test_ten_thousand_labels_are_resolved_in_a_fraction_of_a_second() -> None:
    _, annotations = crowd(3_334, [0.9, 0.8, 0.7], classes=10)
    started = time.process_time()
    assert len(resolve(annotations).annotations) > 2_500
    assert time.process_time() - started < 2
