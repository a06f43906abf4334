"""A score that is about 0 as long as the pictures are those of the validation part, and says when they are not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import ValidationError

from fixtures.pictures import encoded
from lensmith.bundle.drift import MAX_GROUPS, MIN_ANSWERS, MIN_IMAGES, THRESHOLDS, DriftWindow, Reference, stability
from lensmith.imaging.preprocessing import Preprocessing, preprocess

Answers = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def answers(rng: np.random.Generator, shares: np.ndarray[Any, Any], count: int, sure: float = 6.0) -> Answers:
    """Probabilities (N, C) of a model that is right mostly, and features (N, 8) that depend on the class."""
    truth = rng.choice(len(shares), count, p=shares)
    logits = rng.normal(size=(count, len(shares)))
    logits[np.arange(count), truth] += rng.normal(sure, 2, count)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    features = truth[:, None] % 4 + rng.normal(size=(count, 8))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), features.astype(np.float32)


def fill(window: DriftWindow, given: Answers) -> DriftWindow:
    for probabilities, features in zip(*given, strict=True):
        window.note(int(probabilities.argmax()), float(probabilities.max()), features)
    return window


def filled(reference: Reference, given: Answers, **size: int) -> DriftWindow:
    return fill(DriftWindow(reference, **size), given)


def even(classes: int) -> np.ndarray[Any, Any]:
    return np.full(classes, 1 / classes)


def skewed(classes: int) -> np.ndarray[Any, Any]:
    weights = 1 / np.arange(1, classes + 1)
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("classes", "images", "count", "mix"),
    [(2, 100, 200, even), (100, 100, 200, even), (1000, 100, 200, skewed), (40, 200, 200, skewed), (9, 900, 900, even)],
)
def test_fewer_than_one_window_in_a_hundred_raises_a_false_alarm_of_classes_whatever_the_sizes(
    classes: int, images: int, count: int, mix: Callable[[int], np.ndarray[Any, Any]]
) -> None:
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(400):
        drawn = rng.choice(classes, images + count, p=mix(classes))
        seen = tuple(np.bincount(drawn[:images], minlength=classes).tolist())
        window = DriftWindow(Reference(part="val", images=images, classes=seen, confidence=(images,)))
        for class_id in drawn[images:].tolist():
            window.note(class_id, 1.0)
        scores.append(window.scores()["classes"])
    assert np.mean(np.array(scores) > THRESHOLDS["classes"]) < 0.01
    assert np.mean(scores) < 0.05  # and it reads about 0


@pytest.mark.parametrize(("images", "count"), [(100, 200), (500, 500)])
def test_fewer_than_one_window_in_a_hundred_raises_a_false_alarm_of_confidence_or_features(
    images: int, count: int
) -> None:
    rng = np.random.default_rng(1)
    raised = {"confidence": 0, "features": 0}
    for _ in range(200):
        reference = Reference.of("val", *answers(rng, even(5), images, sure=3.0))
        scores = filled(reference, answers(rng, even(5), count, sure=3.0)).scores()
        raised = {kind: so_far + (scores[kind] > THRESHOLDS[kind]) for kind, so_far in raised.items()}
    assert max(raised.values()) <= 2


def test_features_that_move_all_together_raise_no_more_false_alarms() -> None:
    """The worst case: one number several times over."""
    rng = np.random.default_rng(2)
    raised = 0
    for _ in range(400):
        drawn = rng.normal(size=(MIN_IMAGES + MIN_ANSWERS, 1)).repeat(3, axis=1).astype(np.float32)
        probabilities = np.full((len(drawn), 2), 0.5, np.float32)
        reference = Reference.of("val", probabilities[:MIN_IMAGES], drawn[:MIN_IMAGES])
        window = filled(reference, (probabilities[MIN_IMAGES:], drawn[MIN_IMAGES:]))
        raised += window.scores()["features"] > THRESHOLDS["features"]
    assert raised <= 4


def test_another_mix_of_classes_is_seen_in_the_classes_and_not_in_the_confidence() -> None:
    rng = np.random.default_rng(3)
    reference = Reference.of("val", *answers(rng, even(10), 1000))
    without_one = np.where(np.arange(10) == 3, 0, 1 / 9)
    scores = filled(reference, answers(rng, without_one, 1000)).scores()
    assert scores["classes"] > THRESHOLDS["classes"]
    assert scores["confidence"] < 0.05


def test_a_rare_class_that_becomes_frequent_is_seen_among_a_thousand() -> None:
    rng = np.random.default_rng(4)
    reference = Reference.of("val", *answers(rng, even(1000), 1000, sure=12.0))
    surging = np.full(1000, 0.8 / 999)
    surging[777] = 0.2
    assert filled(reference, answers(rng, surging, 1000, sure=12.0)).scores()["classes"] > THRESHOLDS["classes"]


def test_less_confident_answers_are_seen_even_where_all_of_the_reference_were_sure() -> None:
    certain = np.tile(np.array([[1 - 1e-6, 1e-6]], np.float32), (500, 1))
    reference = Reference.of("val", certain)
    window = DriftWindow(reference)
    for number in range(500):
        window.note(0, 0.95 if number % 10 == 0 else 1.0)
    assert window.scores()["confidence"] > THRESHOLDS["confidence"]
    same = filled(reference, (certain, np.empty((500, 0), np.float32)))
    assert same.scores()["confidence"] == 0


def test_what_engines_round_differently_is_no_drift() -> None:
    rng = np.random.default_rng(5)
    sure = (1 - 10 ** rng.uniform(-7, -4, 500)).astype(np.float32)
    reference = Reference.of("val", np.stack([sure, 1 - sure], axis=1))
    window = DriftWindow(reference)
    for each in sure.tolist():
        window.note(0, each - 5e-6)
    assert window.scores()["confidence"] < 0.05


def picture(seed: int) -> Image.Image:
    """Stripes on a ground, whose colours and widths differ from picture to picture."""
    rng = np.random.default_rng(seed)
    across = np.arange(48) // int(rng.integers(2, 7)) % 2
    pixels = np.where(across[:, None, None], rng.integers(60, 240, 3), rng.integers(20, 120, 3))
    return Image.fromarray(np.clip(pixels.repeat(48, axis=1) + rng.normal(0, 12, (48, 48, 3)), 0, 255).astype(np.uint8))


def test_pictures_that_are_taken_otherwise_are_seen_in_features_and_odd() -> None:
    """Through encoded files and the service's own preprocessing; the features are those of a small random network."""
    kernels = np.random.default_rng(6).normal(size=(32, 75)).astype(np.float32)

    def features(each: Image.Image) -> np.ndarray[Any, Any]:
        prepared = preprocess(encoded(each, "BMP"), Preprocessing(image_size=20, resize="squash"))
        seen = prepared.reshape(3, 4, 5, 4, 5).transpose(1, 3, 0, 2, 4).reshape(16, 75) @ kernels.T
        return np.maximum(seen, 0).mean(axis=0).astype(np.float32)

    ordinary = np.stack([features(picture(seed)) for seed in range(200)])
    reference = Reference.of("val", np.full((200, 2), 0.5, np.float32), ordinary)

    def seen(change: Callable[[Image.Image], Image.Image]) -> tuple[bool, float]:
        """Whether 200 other pictures, changed so, count as drift, and the share of odd ones."""
        found = np.stack([features(change(picture(seed))) for seed in range(200, 400)])
        window = filled(reference, (np.full((200, 2), 0.5, np.float32), found))
        odd = np.mean([reference.odd(0.5, each) for each in found])
        return window.scores()["features"] > THRESHOLDS["features"], float(odd)

    drifts, odd = seen(lambda picture: picture)
    assert not drifts
    assert odd < 0.05
    assert seen(lambda picture: picture.filter(ImageFilter.GaussianBlur(3)))[0]
    assert seen(lambda picture: ImageEnhance.Brightness(picture).enhance(0.5))[0]


def test_about_one_ordinary_answer_in_a_hundred_is_odd() -> None:
    rng = np.random.default_rng(7)
    reference = Reference.of("val", *answers(rng, even(10), 2000))
    probabilities, features = answers(rng, even(10), 2000)
    confidence = probabilities.max(axis=1)
    assert 0.002 < np.mean([reference.odd(float(each)) for each in confidence]) < 0.025
    assert 0.004 < np.mean([reference.odd(float(c), f) for c, f in zip(confidence, features, strict=True)]) < 0.05
    assert np.mean(confidence < reference.low_confidence) < 0.02
    assert reference.odd(float("nan"))
    assert reference.odd(1.0, features[0] + 100)
    assert not reference.odd(1.0, features[0])


def test_there_is_no_score_of_few_answers_or_against_few_images() -> None:
    rng = np.random.default_rng(8)
    large = Reference.of("val", *answers(rng, even(3), 300))
    assert filled(large, answers(rng, even(3), MIN_ANSWERS - 1)).scores() == {}
    assert set(filled(large, answers(rng, even(3), MIN_ANSWERS)).scores()) == {"classes", "confidence", "features"}
    small = Reference.of("val", *answers(rng, even(3), MIN_IMAGES - 1))
    assert filled(small, answers(rng, even(3), 500)).scores() == {}


def test_a_window_forgets_what_has_left_it() -> None:
    rng = np.random.default_rng(9)
    reference = Reference.of("val", *answers(rng, even(4), 500))
    window = filled(reference, answers(rng, np.array([1.0, 0, 0, 0]), 400), size=300)
    assert len(window) == 300
    assert window.scores()["classes"] > 1
    recent = answers(rng, even(4), 300)
    assert fill(window, recent).scores() == filled(reference, recent).scores()


def test_features_that_are_no_numbers_cost_their_score_alone_until_they_have_left() -> None:
    rng = np.random.default_rng(10)
    reference = Reference.of("val", *answers(rng, even(4), 500))
    window = filled(reference, answers(rng, even(4), 300), size=300)
    window.note(0, 0.9, np.full(8, np.nan, np.float32))
    assert set(window.scores()) == {"classes", "confidence"}
    assert "features" in fill(window, answers(rng, even(4), 300)).scores()


def test_the_index_is_the_published_one_less_its_expectation() -> None:
    counts, expected = [500, 300, 200], [400, 400, 200]
    p, q = (np.array(each) + 0.5 for each in (counts, expected))
    p, q = p / p.sum(), q / q.sum()
    assert stability(counts, expected) == pytest.approx(float(((p - q) * np.log(p / q)).sum()) - 2 * (2 / 1000))


def test_a_reference_holds_counts_and_no_image() -> None:
    probabilities, features = answers(np.random.default_rng(12), skewed(MAX_GROUPS), 400)
    reference = Reference.of("val", probabilities, features)
    stored = reference.model_dump()
    assert {len(value) for value in stored.values() if isinstance(value, tuple)} <= {8, 9, 10, MAX_GROUPS}
    assert sum(stored["classes"]) == sum(stored["confidence"]) == stored["images"] == 400
    assert Reference.model_validate_json(reference.model_dump_json()) == reference


@pytest.mark.parametrize(
    "changed",
    [
        {"classes": (1, 2)}, {"classes": (-1, 5)}, {"confidence": (4, 0)}, {"confidence_edges": (0.9, 0.5)},
        {"feature_means": (0.0,)}, {"feature_means": (0.0,), "feature_variances": (0.0,), "feature_images": 4},
        {"images": 0},
    ],
)  # fmt: skip
def test_a_reference_that_does_not_fit_together_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Reference.model_validate({"part": "val", "images": 4, "classes": (2, 2), "confidence": (4,), **changed})
