"""Answers that a bundle has given before are read from the cache, and are those that it gives."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lensmith.bundle.format import Bundle
from lensmith.inference.classifier import Classifier, Prediction, load
from lensmith.workflows.pipeline.cached_answers import CachingClassifier


def test_only_contents_that_a_bundle_has_not_answered_run_through_its_engine(
    colour_bundle: Bundle, many_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    files = sorted(many_colours.rglob("*.*"))[::9]
    expected = load(colour_bundle.path).predict(files, 2)
    caching, answered = CachingClassifier(colour_bundle, load(colour_bundle.path).engine), []
    honest = Classifier._file

    def counted(self: Classifier, path: Path, top_k: int) -> Prediction:
        answered.append(path)
        return honest(self, path, top_k)

    monkeypatch.setattr(Classifier, "_file", counted)
    for _ in range(2):
        found = caching.predict(files, 2)
        assert [(each.path, each.top) for each in found] == [(each.path, each.top) for each in expected]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    assert len(answered) == len(files)
    renamed = Path(shutil.copy(files[3], tmp_path / "renamed"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    ours, theirs = caching.predict([renamed, broken], 2)
    assert ours.top == expected[3].top
    assert ours.path == str(renamed)
    assert theirs.error == honest(caching, broken, 2).error
    assert {*answered[len(files) :]} == {broken}
    monkeypatch.setenv("LENSMITH_CACHE", "/proc/none")  # where nothing can be cached
    assert [each.top for each in caching.predict(files, 2)] == [each.top for each in expected]
