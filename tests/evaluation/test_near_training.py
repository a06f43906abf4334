"""Near copies of training images among evaluated ones are named, and what cannot be seen is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal
from lensmith.bundle.image_hashes import FILE, ImageHashes
from lensmith.config import EvaluateSettings
from lensmith.evaluation import near_training
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.run import evaluate


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight soft pictures of two classes in the training part, four of the test part, of which two are near copies."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    for number in range(12):
        folder = root / ("train" if number < 8 else "test") / ("red" if number % 2 else "blue")
        folder.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        noise.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    for source, copy in (("blue/00", "blue/mirrored"), ("red/01", "blue/wrong")):
        with Image.open(root / f"train/{source}.png") as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((50, 50)).save(root / f"test/{copy}.jpg")
    return root


@pytest.fixture
def bundle(colour_bundle: Bundle, photos: Path, tmp_path: Path) -> Bundle:
    """A bundle that learnt from the training part."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (GRAPH, GOLDEN):
        shutil.copy(colour_bundle.path / name, folder)
    hashes = ImageHashes.of(sorted((photos / "train").rglob("*.png")), [])
    hashes.save(folder / FILE)
    return seal(folder, colour_bundle.manifest.model_copy(update={"image_hashes": hashes.entry}))


def run(bundle: Bundle, data: Path, part: str = "auto") -> Evaluation:
    out = data.parent / "evaluation"
    return evaluate(EvaluateSettings.model_validate({"bundle": bundle.path, "data": data, "part": part, "out": out}))


def test_the_report_names_each_pair_with_both_classes(bundle: Bundle, photos: Path) -> None:
    found = run(bundle, photos)
    stored = json.loads((photos.parent / "evaluation/evaluation.json").read_text())["near_training"]
    pairs = {
        tuple(each[name].removeprefix(f"{photos}/") for name in ("path", "label", "training", "training_label"))
        for each in stored["pairs"]
    }
    assert pairs == {
        ("test/blue/mirrored.jpg", "blue", "train/blue/00.png", "blue"),
        ("test/blue/wrong.jpg", "blue", "train/red/01.png", "red"),
    }
    assert (stored["compared"], stored["learnt"], stored["too_many"]) == (8, 8, None)
    assert any("8 training images: 2 evaluated images" in note for note in found.notes)
    page = (photos.parent / "evaluation/report.html").read_text()
    assert "Near copies of training images" in page
    assert page.count("two classes") == 1


def test_training_images_are_known_by_content_wherever_they_lie(bundle: Bundle, photos: Path) -> None:
    whole = photos.parent / "whole"
    for number, file in enumerate(sorted(photos.rglob("*.*g"))):
        (whole / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, whole / file.parent.name / f"{number}{file.suffix}")
    found = run(bundle, whole).near_training
    assert found is not None
    assert (len(found.pairs), found.compared) == (2, 8)


def test_what_cannot_be_seen_is_said(bundle: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = photos.parent / "elsewhere"
    shutil.copytree(photos / "test", elsewhere)
    found = run(bundle, elsewhere)
    assert any("is not known, as none of those" in note for note in found.notes)
    shutil.copy(photos / "train/red/01.png", elsewhere / "red")
    assert any("1 of 8 training images" in note for note in run(bundle, elsewhere).notes)
    monkeypatch.setattr(near_training, "MOST", 3)
    found = run(bundle, elsewhere)
    assert any("not searched" in note for note in found.notes)
    assert run(bundle, photos, "train").near_training is None
