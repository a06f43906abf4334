"""A service says how far its answers have moved from the validation part, model by model."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from lensmith.bundle.drift import MIN_ANSWERS, Reference
from lensmith.bundle.format import Bundle
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.classifier import Classifier, Prediction, Ranked, load
from lensmith.inference.engine import FakeEngine
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.metrics.drift import Drift

ClientOf = Callable[..., TestClient]


def reference(features: int = 0) -> Reference:
    """Of 300 answers, each class as often as the others, half of them surer than 0.9."""
    confidence = np.linspace(0.8, 1.0, 300, dtype=np.float32)
    probabilities = np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], axis=1)
    turned = np.stack([np.roll(row, number % 3) for number, row in enumerate(probabilities)])
    drawn = np.random.default_rng(0).normal(size=(300, features)).astype(np.float32)
    return Reference.of("val", turned, drawn if features else None)


def answer(client: TestClient, image: bytes, times: int) -> None:
    for start in range(0, times, 25):
        files = [("file", image)] * min(25, times - start)
        assert client.post("/predict/batch", files=files).status_code == 200


def as_in_the_reference(number: int) -> TimedPrediction:
    sure = 0.8 + 0.2 * (number % 100) / 99
    return TimedPrediction(Prediction(top=(Ranked(number % 3, "", sure),)), 0.0, 0.0)


@pytest.fixture
def model_of(remake: Callable[..., Bundle]) -> Callable[..., LoadedModel]:
    def make(version: str, reference: Reference | None) -> LoadedModel:
        bundle = remake(f"version-{version}", version=version, reference=reference)
        return LoadedModel(load(bundle.path), 10**8, bundle.path)

    return make


def score(registry: CollectorRegistry, kind: str, version: str) -> float | None:
    return registry.get_sample_value("lensmith_drift_score", {"kind": kind, "version": version})


def test_pictures_of_one_class_alone_are_drift_that_prometheus_reads(
    client_of: ClientOf, remake: Callable[..., Bundle], red_png: bytes
) -> None:
    with client_of(bundle=remake("with-reference", reference=reference()).path) as client:
        answer(client, red_png, MIN_ANSWERS - 1)
        assert "lensmith_drift_score{" not in client.get("/metrics").text
        answer(client, red_png, 1)
        shown = [line for line in client.get("/metrics").text.splitlines() if line.startswith("lensmith_drift_score{")]
    found = {line.partition(" ")[0]: float(line.partition(" ")[2]) for line in shown}
    assert set(found) == {
        'lensmith_drift_score{kind="classes",version="1"}',
        'lensmith_drift_score{kind="confidence",version="1"}',
    }
    assert min(found.values()) > 1


def test_images_that_the_model_knows_are_no_drift_and_hide_none(
    client_of: ClientOf, remake: Callable[..., Bundle], tmp_path: Path, red_png: bytes
) -> None:
    (tmp_path / "red.png").write_bytes(red_png)
    bundle = remake("knowing", reference=reference(), learnt=[tmp_path / "red.png"])
    with client_of(bundle=bundle.path) as client:
        answer(client, red_png, MIN_ANSWERS)
        assert "lensmith_drift_score{" not in client.get("/metrics").text
        answer(client, red_png + b"other bytes behind the picture", MIN_ANSWERS)
        assert "lensmith_drift_score{" in client.get("/metrics").text


def test_a_bundle_without_a_reference_has_no_score(model_of: Callable[..., LoadedModel]) -> None:
    registry = CollectorRegistry()
    drift, model = Drift(registry), model_of("1", None)
    for number in range(MIN_ANSWERS):
        drift.note(model, as_in_the_reference(number))
    drift.show([model])
    assert score(registry, "classes", "1") is None


def test_answers_as_in_the_reference_read_about_nought(model_of: Callable[..., LoadedModel]) -> None:
    registry = CollectorRegistry()
    drift, model = Drift(registry), model_of("1", reference())
    for number in range(900):
        drift.note(model, as_in_the_reference(number))
    drift.show([model])
    assert score(registry, "classes", "1") == pytest.approx(0, abs=0.01)
    assert score(registry, "confidence", "1") == pytest.approx(0, abs=0.05)
    assert score(registry, "features", "1") is None


def test_each_model_has_a_window_of_its_own_and_a_swap_begins_anew(model_of: Callable[..., LoadedModel]) -> None:
    registry = CollectorRegistry()
    drift, old, new = Drift(registry), model_of("1", reference()), model_of("2", reference())
    for number in range(MIN_ANSWERS):
        drift.note(old, as_in_the_reference(3 * number))
        drift.note(new, as_in_the_reference(number))
    drift.show([old, new])
    assert score(registry, "classes", "1") > 1  # type: ignore[operator]
    assert score(registry, "classes", "2") == 0
    again = model_of("1-again", reference())
    again.identity = old.identity
    drift.show([again, new])
    assert score(registry, "classes", "1") is None
    assert score(registry, "classes", "2") == 0


@pytest.mark.slow
def test_a_model_that_is_served_no_more_leaves_memory_though_nobody_reads_the_scores(
    model_of: Callable[..., LoadedModel],
) -> None:
    drift, model = Drift(CollectorRegistry()), model_of("1", reference())
    drift.note(model, as_in_the_reference(0))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_features_of_the_engine_are_scored_too(
    client_of: ClientOf, remake: Callable[..., Bundle], red_png: bytes
) -> None:
    def logits(batch: Tensor) -> Tensor:
        return np.zeros((len(batch), 3), np.float32)

    def far_off(batch: Tensor) -> Tensor:
        return np.full((len(batch), 8), 3, np.float32)

    bundle = remake("with-features", reference=reference(features=8))
    engine = FakeEngine(logits, features=far_off)
    with client_of(Classifier(bundle, engine)) as client:
        answer(client, red_png, MIN_ANSWERS)
        page = client.get("/metrics").text
    line = next(each for each in page.splitlines() if each.startswith('lensmith_drift_score{kind="features"'))
    assert float(line.rpartition(" ")[2]) == pytest.approx(9, rel=0.2)
