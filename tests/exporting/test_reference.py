"""What a bundle remembers of its validation part, and the features that it can tell drift by."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings
from lensmith.errors import SettingsError
from lensmith.exporting.export import ExportResult, export
from lensmith.exporting.onnx_graph import StaticInt8, float16
from lensmith.exporting.openvino_graph import OpenVinoInt8
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.classifier import load
from lensmith.inference.engine import open_graph


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    return export(ExportSettings(run=trained, out=out, features=True), quick=True)


@pytest.mark.slow
def test_it_counts_the_answers_that_the_bundle_gives(exported: ExportResult) -> None:
    reference, evaluation = exported.manifest.reference, exported.evaluation
    assert reference is not None
    assert (reference.part, reference.images) == ("val", len(evaluation.files))
    classifier = load(exported.bundle)
    answers = classifier.predict(evaluation.files)
    assert reference.classes == tuple(np.bincount([answer.class_id for answer in answers], minlength=3).tolist())
    edges = [0.0, *reference.confidence_edges, 1.0]
    confidence = [answer.confidence for answer in answers]
    found = [sum(low < each <= high for each in confidence) for low, high in pairwise(edges)]
    assert reference.confidence == tuple(found)
    assert reference.low_confidence == pytest.approx(min(confidence), abs=1e-4)


@pytest.mark.slow
def test_means_of_the_features_are_those_of_the_serving_path(exported: ExportResult) -> None:
    reference, classifier = exported.manifest.reference, load(exported.bundle)
    assert reference is not None
    rows = [
        classifier.engine.run_with_features(classifier.prepare(file.read_bytes())[None])[1]
        for file in exported.evaluation.files
    ]
    features = np.concatenate([row for row in rows if row is not None])
    assert features.shape == (reference.feature_images, 96) == (reference.images, 96)
    np.testing.assert_allclose(reference.feature_means, features.mean(axis=0), rtol=1e-3, atol=1e-4)
    assert not any(reference.odd(1.0, row) for row in features)


@pytest.mark.slow
def test_without_being_asked_for_there_are_no_features_and_the_answers_are_the_same(
    exported: ExportResult, trained: Path, tmp_path: Path
) -> None:
    plain = export(ExportSettings(run=trained, out=tmp_path / "bundle"), quick=True)
    assert plain.manifest.reference is not None
    assert plain.manifest.reference.feature_means == ()
    assert load(plain.bundle).engine.run_with_features(np.zeros((1, 3, 32, 32), np.float32))[1] is None
    mine, its = (Bundle.load(each.bundle).golden().probabilities for each in (exported, plain))
    np.testing.assert_array_equal(mine, its)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16", "openvino-int8"])
def test_graphs_of_other_precisions_keep_the_features(
    precision: str, exported: ExportResult, its_images: Tensor, tmp_path: Path
) -> None:
    graph = exported.bundle / "model.onnx"
    made, between = tmp_path / ("int8.xml" if precision == "openvino-int8" else "made.onnx"), tmp_path / "between"
    if precision == "int8":
        StaticInt8(graph, its_images[:40], between).write(made)
    elif precision == "fp16":
        float16(graph, made)
    else:
        OpenVinoInt8(graph, its_images[:40], between, False, lambda: (its_images, np.zeros(72)), 0.5).write(made)
    _, expected = open_graph(str(graph), "onnxruntime", "fp32", 1).run_with_features(its_images)
    engine = open_graph(str(made), "openvino" if made.suffix == ".xml" else "onnxruntime", "int8", 1)
    _, found = engine.run_with_features(its_images)
    assert expected is not None
    assert found is not None
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_features_and_terms_of_a_bundle_that_is_measured_anew_make_no_sense(tmp_path: Path) -> None:
    for said in ({"features": True}, {"licence": "mit"}, {"data_licence": "mit"}):
        with pytest.raises(SettingsError, match="retune"):
            ExportSettings.resolve({"retune": tmp_path, **said})
