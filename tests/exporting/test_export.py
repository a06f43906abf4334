"""From a trained run to a bundle, whole or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fixtures import command_line
from fixtures.pictures import COLOURS, coloured_picture
from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings
from lensmith.errors import DataError, OutputError, ParityError, RunError
from lensmith.exporting import export as assemble
from lensmith.exporting import select_engine
from lensmith.exporting.export import ExportResult, export
from lensmith.imaging.preprocessing import preprocess
from lensmith.inference.classifier import load
from lensmith.training.models import backbone
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.validate import ModelOutputs


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(ExportSettings(run=trained, out=tmp_path_factory.mktemp("exported") / "bundle"), quick=True)


@pytest.mark.slow
def test_the_bundle_is_complete_and_verified(exported: ExportResult, trained: Path, shared_colours: Path) -> None:
    bundle = Bundle.load(exported.bundle)
    label_of = {file.read_bytes(): file.parent.name for file in shared_colours.glob("*/*")}
    assert {label_of[image] for image in bundle.golden().images} == {"blue", "green", "red"}
    assert set(bundle.manifest.files) == {"model.onnx", "golden.npz", "image_hashes.npz", "report.html", "README.md"}
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == (
        "colours",
        f"trained-{checkpoint.load(Run.open(trained).best)['epoch']}",
    )
    assert manifest.labels == ("blue", "green", "red")
    assert manifest.preprocessing == Run.open(trained).preprocessing
    assert manifest.metrics["accuracy"] >= 0.9
    assert manifest.dataset["fingerprint"] == Run.open(trained).fingerprint
    assert set(manifest.formats) == {"jpeg", "png"}
    assert sum(manifest.formats.values()) == manifest.dataset["parts"]["train"]
    assert manifest.engines[0].chosen
    assert manifest.recipe["model"] == "test_resnet"
    assert manifest.reference is not None
    assert (manifest.reference.part, sum(manifest.reference.classes)) == ("val", manifest.metrics["images"])


@pytest.mark.slow
def test_figures_leave_out_what_the_model_learnt_from(
    exported: ExportResult, trained: Path, shared_colours: Path, run: command_line.Run, tmp_path: Path
) -> None:
    """One photo more, other names, other folders: only what was held out in the training counts, and the new photo."""
    images = Run.open(trained).images
    counts = {part: len(images.part(part)) for part in images.parts}
    data = Path(shutil.copytree(shared_colours, tmp_path / "colours"))
    for sample in images.part("val"):
        (data / sample.path).rename(data / f"{sample.path[:-4]}-new{sample.path[-4:]}")
    coloured_picture(COLOURS["red"], seed=99).save(data / "red" / "one more.png")
    code, printed, _ = run("evaluate", exported.bundle, data, "--out", tmp_path / "evaluation", "--json")
    found = json.loads(printed)
    assert (code, found["part"], found["images"]) == (0, "all", counts["test"] + 1)
    assert found["held_out"] == {
        "of": 25, "learnt": counts["train"], "chosen": counts["val"], "left_out": counts["train"] + counts["val"],
        "complete": True, "included": [], "copies": 0,
    }  # fmt: skip
    for sample in (*images.part("test"), *images.part("val")):
        for file in data.glob(f"{sample.path[:-4]}*"):
            file.unlink()
    (data / "red" / "one more.png").unlink()
    code, _, said = run("evaluate", exported.bundle, data, "--out", tmp_path / "evaluation")
    assert (code, said.count("\n")) == (2, 1)
    assert f"it learnt from {counts['train']} and was chosen on 0" in said

    for part, number in (("auto", counts["test"]), ("val", counts["val"])):
        table = trained / "splits.csv"
        code, printed, _ = run("evaluate", exported.bundle, table, "--part", part, "--out", tmp_path / "evaluation")
        assert code == 0
        assert f"{number} of {number} images, part {'test' if part == 'auto' else part}" in printed
        assert ("the model was chosen on" in printed) == (part == "val")


@pytest.mark.slow
def test_it_answers_as_the_trained_network(exported: ExportResult, trained: Path, shared_colours: Path) -> None:
    run = Run.open(trained)
    model = backbone.rebuild(run.settings, 3, checkpoint.load(run.best)["model"])
    classifier = load(exported.bundle)
    smoothing = classifier.bundle.manifest.smoothing
    assert smoothing == pytest.approx(3 / 2 / (2 * (exported.evaluation.metrics.images + 1)))
    for file in sorted(shared_colours.rglob("*.*"))[:5]:
        encoded = file.read_bytes()
        with torch.no_grad():
            batch = torch.from_numpy(preprocess(encoded, run.preprocessing)[np.newaxis])
            softmax = (model(batch) / classifier.bundle.manifest.temperature).softmax(1)[0].numpy()
        expected = softmax * (1 - smoothing) + smoothing / 3
        np.testing.assert_allclose(classifier.classify(encoded).probabilities, expected, atol=1e-4)
    assert exported.parity.agreement == 1.0
    assert exported.parity.largest_difference < 1e-4


def another_head(run: Run) -> None:
    state = checkpoint.load(run.best)
    state["model"]["fc.weight"].neg_()
    checkpoint.save(state, run.best)


def another_figure(run: Run) -> None:
    best = [line for line in run.read_events("epoch") if line["best"]][-1]
    run.record(**{**best, "val_accuracy": 1 - best["val_accuracy"]})


@pytest.mark.parametrize("harm", [another_head, another_figure])
def test_a_network_that_is_not_the_one_that_the_run_reported_of_leaves_nothing(
    trained: Path, tmp_path: Path, harm: Callable[[Run], None]
) -> None:
    harmed = Run.open(Path(shutil.copytree(trained, tmp_path / "run")))
    harm(harmed)
    settings = ExportSettings(run=harmed.path, out=tmp_path / "bundle", overwrite=True)
    with pytest.raises(ParityError, match="as the run reported of its best epoch"):
        export(settings, quick=True)
    assert not (tmp_path / "bundle").exists()
    if harm is another_head:  # what is lost is lost against the run, not against the harmed network
        accepted = export(settings.model_copy(update={"max_accuracy_drop": 100.0}), quick=True)
        assert accepted.manifest.engines[0].drop == pytest.approx(100 * (1 - accepted.evaluation.metrics.accuracy))


@pytest.mark.parametrize("recorded_otherwise", [False, True])
def test_pytorch_answers_all_images_again_only_where_those_that_were_recorded_do_not_hold(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_otherwise: bool
) -> None:
    copied, answered = Run.open(Path(shutil.copytree(trained, tmp_path / "run"))), []
    if recorded_otherwise:
        state = checkpoint.load(copied.best)
        assert len(state["validation"]["logits"]) == 6
        state["validation"]["logits"][1] += torch.tensor([1.0, 0.0, 0.0])  # of an image that is not answered at first
        checkpoint.save(state, copied.best)
    honest = select_engine.compute_outputs

    def counted(*given: Any) -> ModelOutputs:
        outputs = honest(*given)
        answered.append(len(outputs.indices))
        return outputs

    monkeypatch.setattr(select_engine, "RECOMPUTED", 2)
    monkeypatch.setattr(select_engine, "compute_outputs", counted)
    made = export(ExportSettings(run=copied.path, out=tmp_path / "bundle"), quick=True)
    assert answered == ([2, 6] if recorded_otherwise else [2])
    assert made.parity.images == 6
    assert made.parity.largest_difference < 1e-4


def test_a_run_of_an_earlier_version_is_held_against_its_figure(trained: Path, tmp_path: Path) -> None:
    old = Run.open(Path(shutil.copytree(trained, tmp_path / "run")))
    state = checkpoint.load(old.best)
    checkpoint.save({name: state[name] for name in ("model", "epoch")}, old.best)
    assert export(ExportSettings(run=old.path, out=tmp_path / "bundle"), quick=True).manifest.engines[0].drop == 0
    another_figure(old)
    with pytest.raises(ParityError):
        export(ExportSettings(run=old.path, out=tmp_path / "other"), quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_graph_that_answers_otherwise_leaves_nothing(
    trained: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = assemble.write_graph

    def perturbed(*network: Any) -> Path:
        graph = onnx.load(honest(*network))
        bias = next(tensor for tensor in graph.graph.initializer if list(tensor.dims) == [3])
        bias.CopyFrom(numpy_helper.from_array(np.array([100, 0, 0], np.float32), bias.name))
        onnx.save(graph, network[2])
        return Path(network[2])

    monkeypatch.setattr(assemble, "write_graph", perturbed)
    with pytest.raises(ParityError):
        export(ExportSettings(run=trained, out=tmp_path / name), quick=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_zip_answers_as_the_folder(
    exported: ExportResult, trained: Path, shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "a" / "new" / "colours.zip"
    export(ExportSettings(run=trained, out=out), quick=True)
    assert list(out.parent.iterdir()) == [out]
    encoded = next(shared_colours.rglob("*.jpg")).read_bytes()
    assert load(out).classify(encoded).top == load(exported.bundle).classify(encoded).top


@pytest.mark.slow
def test_an_older_bundle_is_replaced_only_when_asked(trained: Path, exported: ExportResult, tmp_path: Path) -> None:
    target = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    with pytest.raises(OutputError, match="--overwrite"):
        export(ExportSettings(run=trained, out=target), quick=True)
    export(ExportSettings(run=trained, out=target, overwrite=True, bundle_name="other"), quick=True)
    assert Bundle.load(target).manifest.name == "other"


@pytest.mark.slow
def test_a_failed_replacement_keeps_the_old_one(
    trained: Path, exported: ExportResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    monkeypatch.setattr(assemble, "write_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(ExportSettings(run=trained, out=target, overwrite=True), quick=True)
    assert load(target).bundle.manifest == load(exported.bundle).bundle.manifest
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_an_unreadable_validation_image_is_left_out_of_the_comparison(
    trained: Path, colours: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    description = json.loads((run / "run.json").read_text())
    description["data"]["root"] = str(colours)
    (run / "run.json").write_text(json.dumps(description))
    validation = Run.open(run).images.part("val")
    (colours / validation[2].path).write_bytes(b"broken")
    made = export(ExportSettings(run=run), quick=True)
    assert made.parity.images == len(made.evaluation.files) == 5
    assert made.parity.largest_difference < 1e-4
    for sample in validation:
        (colours / sample.path).unlink()
    with pytest.raises(DataError, match="6"):
        export(ExportSettings(run=run, out=tmp_path / "another"), quick=True)
    assert not (tmp_path / "another").exists()


def test_a_run_without_a_finished_epoch_or_no_run_at_all_is_refused(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "checkpoints" / "best.pt").unlink()
    with pytest.raises(RunError, match=f"lensmith train --resume {run}"):
        export(ExportSettings(run=run), quick=True)
    with pytest.raises(RunError, match="nowhere"):
        export(ExportSettings(run=tmp_path / "nowhere"), quick=True)


def test_what_is_no_bundle_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError):
        export(ExportSettings(run=trained, out=tmp_path, overwrite=True), quick=True)
    assert (tmp_path / "mine.jpg").read_bytes() == b"mine"
