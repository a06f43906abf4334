"""From a trained run to a bundle, whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lensmith.bundle import Bundle
from lensmith.classifier import load
from lensmith.config import ExportSettings
from lensmith.errors import OutputError, ParityError, RunError
from lensmith.export import assemble
from lensmith.export.assemble import Exported, export
from lensmith.image import preprocess
from lensmith.train import backbone, checkpoint
from lensmith.train.run import Run


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(ExportSettings(run=trained, out=tmp_path_factory.mktemp("exported") / "bundle"))


def test_the_bundle_is_complete_and_verified(exported: Exported, trained: Path) -> None:
    bundle = Bundle.load(exported.bundle)
    assert set(bundle.manifest.files) == {"model.onnx", "golden.npz", "report.html", "README.md"}
    manifest = bundle.manifest
    assert manifest.labels == ("blue", "green", "red")
    assert manifest.preprocessing == Run.open(trained).preprocessing
    assert manifest.metrics["accuracy"] >= 0.9
    assert manifest.dataset["fingerprint"] == Run.open(trained).fingerprint
    assert manifest.engines[0].chosen
    assert manifest.recipe["model"] == "test_resnet"
    assert "blue, green, red" in (bundle.path / "README.md").read_text()


def test_it_answers_as_the_trained_network(exported: Exported, trained: Path, shared_colours: Path) -> None:
    run = Run.open(trained)
    model = backbone.rebuild(run.settings, 3, checkpoint.load(run.best)["model"])
    classifier = load(exported.bundle)
    for file in sorted(shared_colours.rglob("*.*"))[:5]:
        encoded = file.read_bytes()
        with torch.no_grad():
            batch = torch.from_numpy(preprocess(encoded, run.preprocessing)[np.newaxis])
            expected = model(batch).softmax(1)[0].numpy()
        np.testing.assert_allclose(classifier.classify(encoded).probabilities, expected, atol=1e-4)
    assert exported.parity.agreement == 1.0
    assert exported.parity.largest_difference < 1e-4


def test_a_graph_that_answers_otherwise_leaves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = assemble.write_graph

    def perturbed(model: Any, *rest: Any) -> Path:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        return honest(model, *rest)

    reference = backbone.rebuild

    def rebuilt_twice(*args: Any) -> Any:
        model = reference(*args)
        monkeypatch.setattr(assemble, "write_graph", lambda _, *rest: perturbed(reference(*args), *rest))
        return model

    monkeypatch.setattr(assemble.backbone, "rebuild", rebuilt_twice)
    with pytest.raises(ParityError, match="No bundle was written"):
        export(ExportSettings(run=trained, out=tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


def test_a_zip_answers_as_the_folder(
    exported: Exported, trained: Path, shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "colours.zip"
    export(ExportSettings(run=trained, out=out))
    encoded = next(shared_colours.rglob("*.jpg")).read_bytes()
    assert load(out).classify(encoded).top == load(exported.bundle).classify(encoded).top


def test_an_older_bundle_is_replaced_only_when_asked(trained: Path, exported: Exported, tmp_path: Path) -> None:
    target = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    with pytest.raises(OutputError, match="--overwrite"):
        export(ExportSettings(run=trained, out=target))
    export(ExportSettings(run=trained, out=target, overwrite=True, name="other"))
    assert Bundle.load(target).manifest.name == "other"


def test_a_failed_replacement_keeps_the_old_one(
    trained: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    monkeypatch.setattr(assemble, "write_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(ExportSettings(run=trained, out=target, overwrite=True))
    assert load(target).bundle.manifest == load(exported.bundle).bundle.manifest
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is none"):
        export(ExportSettings(run=tmp_path / "nowhere"))
