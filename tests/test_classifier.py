"""Loading a bundle and answering."""

from pathlib import Path

import pytest

from lensmith.bundle import Bundle
from lensmith.classifier import load
from lensmith.errors import BundleError


def test_every_colour_is_told_from_the_others(colour_bundle: Bundle, colours: Path) -> None:
    classifier = load(colour_bundle.path)
    files = sorted(colours.rglob("*.*"))
    answers = classifier.predict(files)
    assert [answer.label for answer in answers] == [file.parent.name for file in files]
    assert all(abs(answer.probabilities.sum() - 1) < 1e-5 for answer in answers)


def test_an_unreadable_file_is_an_answer_with_its_reason(colour_bundle: Bundle, colours: Path) -> None:
    (colours / "red" / "000.png").write_bytes(b"not a picture")
    answers = load(colour_bundle.path).predict([colours / "red" / "000.png", colours / "red" / "001.jpg"])
    assert answers[0].label is None
    assert "cannot be decoded" in answers[0].error
    assert answers[1].label == "red"


def test_a_zipped_bundle_answers_as_its_folder(
    colour_bundle: Bundle, colours: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    packed = colour_bundle.pack(tmp_path / "colours.zip")
    picture = (colours / "green" / "002.png").read_bytes()
    assert load(packed).classify(picture).top == load(colour_bundle.path).classify(picture).top


def test_a_changed_graph_is_refused(colour_bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(colour_bundle.path, copy)
    with (copy / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx has changed"):
        load(copy)
