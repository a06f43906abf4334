"""Loading a bundle and answering."""

from pathlib import Path

import numpy as np

from lensmith.bundle.format import Bundle
from lensmith.inference.classifier import load


def test_every_colour_is_told_from_the_others(colour_bundle: Bundle, colours: Path) -> None:
    classifier = load(colour_bundle.path)
    files = sorted(colours.rglob("*.*"))
    answers = classifier.predict(files)
    assert [answer.label for answer in answers] == [file.parent.name for file in files]
    assert all(abs(answer.probabilities.sum() - 1) < 1e-5 for answer in answers)


def test_below_its_threshold_a_bundle_abstains_and_still_says_its_guess(unsure_bundle: Bundle, between: Path) -> None:
    found = load(unsure_bundle.path).classify(between.read_bytes())
    assert found.abstained
    assert found.label == "green"
    assert 0.5 < found.confidence < 0.9
    assert [each.label for each in found.top] == ["green", "red", "blue"]
    assert found.as_dict()["abstained"] is True
    assert load(unsure_bundle.path).predict(between)[0].abstained


def test_from_its_threshold_on_it_answers(unsure_bundle: Bundle) -> None:
    classifier = load(unsure_bundle.path)
    below = np.float32(0.9)  # by 2e-8: the threshold is a double
    above = np.nextafter(below, np.float32(1))
    assert classifier.rank(np.array([below, 0.1, 0], np.float32)).abstained
    assert not classifier.rank(np.array([above, 0.1, 0], np.float32)).abstained


def test_a_bundle_without_a_threshold_never_abstains(colour_bundle: Bundle, between: Path, tmp_path: Path) -> None:
    answers = load(colour_bundle.path).predict([between, tmp_path / "nothing.png"])
    assert [answer.as_dict()["abstained"] for answer in answers] == [False, False]


def test_a_zipped_bundle_answers_as_its_folder(
    colour_bundle: Bundle, between: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    packed = colour_bundle.pack(tmp_path / "colours.zip")
    assert load(packed).predict(between)[0].top == load(colour_bundle.path).predict(between)[0].top
