"""How much an answer may change with the rounding of features, and what a run does where it changes more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lensmith.config import TrainSettings
from lensmith.training import feature_source
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.feature_cache import backends, features
from lensmith.training.feature_cache.exactness import Exactness, rounding_share
from lensmith.training.models import backbone
from lensmith.training.result import RunResult
from lensmith.training.run_dir import checkpoint
from lensmith.training.trainer import Trainer
from lensmith.training.validate import ModelOutputs, compute_outputs

Train = Callable[..., RunResult]
COARSE, FINE = 0.25, 0.02
"""Multiples that a backend rounds features to, where images differ by a few hundredths."""


def outputs(logits: list[list[float]], labels: list[int]) -> ModelOutputs:
    return ModelOutputs(torch.tensor(logits), torch.tensor(labels), list(range(len(labels))), [])


@pytest.mark.parametrize(
    ("rounded", "exact", "suffices"),
    [
        ([[2.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 2.0]], True),
        ([[2.0, 0.0], [0.0, 2.0]], [[1.97, 0.0], [0.02, 2.0]], True),
        ([[2.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [2.0, 0.0]], False),  # another class
        ([[9.0, 0.0], [0.0, 9.0]], [[2.0, 0.0], [0.0, 2.0]], False),  # the same class, far less sure
        ([[2.0, 0.0], [0.0, 2.0]], [[9.0, 0.0], [0.0, 9.0]], False),
        ([[2.0, 0.0], [0.0, 2.0]], [[float("nan"), 0.0], [0.0, 2.0]], False),
    ],
)
def test_a_few_thousandths_of_loss_are_negligible(
    rounded: list[list[float]], exact: list[list[float]], suffices: bool
) -> None:
    assert Exactness.of(outputs(rounded, [0, 1]), outputs(exact, [0, 1])).suffices is suffices


def test_images_that_only_one_of_them_has_are_left_out() -> None:
    fewer = ModelOutputs(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), [1], [])
    found = Exactness.of(outputs([[1.0, 0.0], [0.0, 1.0]], [0, 1]), fewer)
    assert (found.rows, found.changed, found.suffices) == (1, 0, True)


def test_rounding_is_measured_by_what_tells_the_images_apart() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(0, 1, (50, 8, 2)).astype(np.float32)
    noise = random.normal(0, 0.1, exact.shape)
    assert rounding_share(exact + noise, exact) == pytest.approx(0.1, rel=0.1)
    assert rounding_share(exact + noise + 100, exact + 100) == pytest.approx(0.1, rel=0.1)
    exact[3] = np.nan
    assert rounding_share(exact.astype(np.float16), exact) < 1e-3
    same = np.ones_like(exact)
    assert rounding_share(same, same) == 0
    assert rounding_share(same + 1, same) == float("inf")


@pytest.fixture
def faint(tmp_path: Path) -> Path:
    """Two classes that differ by a few grey levels of one scene, as a fixed camera sees them."""
    random = np.random.default_rng(0)
    scene = random.uniform(60, 200, (32, 32, 3))
    for number, label in enumerate(("off", "on")):
        folder = tmp_path / "faint" / label
        folder.mkdir(parents=True)
        for image in range(24):
            pixels = scene + 8 * number + random.normal(0, 1, scene.shape)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{image:02}.png")
    return tmp_path / "faint"


@pytest.fixture
def train(
    quick: dict[str, Any], faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_plots: None
) -> Train:
    """Train on the faint images with a backend that rounds to multiples of `step`."""
    plain = backends.FrozenTrunk.open
    monkeypatch.setattr(backends.FrozenTrunk, "fastest_backend", lambda self, key, images: "torch bf16")
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))

    def run(step: float, **changes: Any) -> RunResult:
        def rounding(self: backends.FrozenTrunk, name: str) -> backends.Backend:
            exact = plain(self, "torch fp32")
            return exact if name.endswith("fp32") else lambda batch: (exact(batch) / step).round() * step

        monkeypatch.setattr(backends.FrozenTrunk, "open", rounding)
        settings = {**quick, "cache_gb": 1, "data": faint, "out": tmp_path / "run", "augment": "none"}
        return Trainer().start(TrainSettings.model_validate({**settings, "precision": "auto", **changes}))

    return run


def shipped(fitted: RunResult) -> ModelOutputs:
    """What the saved best network answers to the validation images."""
    run = fitted.run
    model = backbone.rebuild(run.settings, len(run.images.labels), checkpoint.load(run.best)["model"])
    samples = run.images.part("val")
    dataset = ImageDataset(run.images, samples, run.preprocessing, None, 0)
    batches = build_loader(dataset, EpochSampler(len(samples), 32, None), 0, torch.device("cpu"))
    return compute_outputs(model, batches, torch.device("cpu"))


RECIPES = [
    {"head_solver": "auto", "trainable_stages": 0, "epochs": 2},
    {"head_solver": "minibatch", "trainable_stages": 0, "epochs": 12, "lr": 0.1},
    {"head_solver": "auto", "trainable_stages": 1, "epochs": 4, "head_epochs": 1},
]


@pytest.mark.parametrize(
    ("step", "recipe"), [(COARSE, RECIPES[0]), (FINE, RECIPES[0]), (FINE, RECIPES[1]), (COARSE, RECIPES[2])], ids=str
)
def test_rounding_as_large_as_what_tells_images_apart_is_left_at_once(
    train: Train, step: float, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = train(step, **recipe)
    made = fitted.run.read_events("features")
    assert [(one["engine"], one["exact"]) for one in made[:2]] == [("torch bf16", False), ("torch fp32", True)]
    assert "computed again in fp32" in capsys.readouterr().err
    require_true_figures(fitted)
    assert fitted.metrics["val_accuracy"] == 1.0


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=str)
def test_a_network_that_learns_the_rounding_gets_exact_features(
    train: Train, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_source, "ROUNDING", float("inf"))
    fitted = train(FINE, **recipe)
    found = fitted.run.read_events("exactness")
    assert [one["suffices"] for one in found][-1:] == [False]
    assert fitted.run.read_events("features")[-1]["exact"]
    # so that a resumed run has exact ones, too
    assert {*checkpoint.load(fitted.run.last)["exact"]} == {one["phase"] for one in found if not one["suffices"]}
    require_true_figures(fitted)


def require_true_figures(fitted: RunResult) -> None:
    """The run's best figures are those of the network that was saved."""
    ours = shipped(fitted)
    assert fitted.metrics["val_accuracy"] == pytest.approx(ours.accuracy)
    assert fitted.metrics["val_loss"] == pytest.approx(ours.loss, rel=1e-3, abs=1e-4)


def test_with_precision_fp32_all_features_are(train: Train) -> None:
    fitted = train(COARSE, head_solver="auto", trainable_stages=0, epochs=2, precision="fp32")
    (made,) = fitted.run.read_events("features")
    assert (made["engine"], made["exact"]) == ("torch fp32", True)
    assert not fitted.run.read_events("exactness", "inexact")
    assert fitted.metrics["val_accuracy"] == 1.0


def test_features_that_float16_cannot_hold_are_float32(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "HALF_MAX", 1e-6)
    fitted = train(1e-6, head_solver="auto", trainable_stages=0, epochs=2)
    (made,) = fitted.run.read_events("features")
    assert made["exact"]
    assert not fitted.run.read_events("no_features")
