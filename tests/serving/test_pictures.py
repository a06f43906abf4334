"""Pictures of every kind get the same answer over HTTP and from `predict`, or are refused by both with the reason."""

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.bundles import PREPROCESSING
from fixtures.picture_kinds import KINDS, RANGES, SIDE, pictures
from fixtures.pictures import encoded, photo
from fixtures.serving import assert_problem
from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, EngineRecord, Manifest, seal
from lensmith.bundle.golden import Golden
from lensmith.config import PredictSettings
from lensmith.imaging.formats import FORMATS, is_available
from lensmith.imaging.preprocessing import preprocess
from lensmith.inference.batch import predict
from lensmith.inference.classifier import load
from lensmith.inference.engine import OnnxRuntimeEngine

LABELS = tuple(f"{channel} {place}" for channel in ("red", "green", "blue") for place in ("nw", "ne", "sw", "se"))


def make_pixel_bundle(folder: Path, value_ranges: Any) -> Bundle:
    """A bundle whose probabilities tell the brightness of each quarter of a picture, by channel."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir()
    half = SIDE // 2
    nodes = [
        helper.make_node("AveragePool", ["image"], ["quarters"], kernel_shape=[half, half], strides=[half, half]),
        helper.make_node("Flatten", ["quarters"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "quarters",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LABELS)])],
        [numpy_helper.from_array(np.float32(4), "scale")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / GRAPH)
    how = dataclasses.replace(PREPROCESSING, resize="squash", value_ranges=value_ranges)
    images = (encoded(photo().resize((SIDE, SIDE))),)
    engine = OnnxRuntimeEngine(str(folder / GRAPH), "fp32", threads=1)
    Golden(images, engine.run(np.stack([preprocess(images[0], how)]))).save(folder / GOLDEN, LABELS)
    record = EngineRecord(engine="onnxruntime", precision="fp32", graph=GRAPH, chosen=True, why="the only one")
    return seal(folder, Manifest(name="quarters", version="1", labels=LABELS, preprocessing=how, engines=(record,)))


def write_pictures(folder: Path, ranges: str) -> list[str]:
    """Write every kind of the bundle with these ranges, each with two pictures in two orientations."""
    folder.mkdir()
    names = []
    for at, (name, kind) in enumerate(KINDS.items()):
        if kind.ranges == ranges:
            for number in (at % 40, (at + 17) % 40):
                file = folder / f"{at:03d}-{number:02d}.{kind.suffix}"
                file.write_bytes(kind.write(pictures(40)[number], 1 + number % 8 if kind.turns else 1))
                names.append(name)
    return names


@pytest.mark.parametrize("ranges", RANGES)
def test_http_answers_as_predict_does_for_every_kind_of_picture(
    ranges: str, tmp_path: Path, client_of: Callable[..., Any]
) -> None:
    bundle = make_pixel_bundle(tmp_path / "bundle", RANGES[ranges])
    names = write_pictures(tmp_path / "pictures", ranges)
    rows = predict(PredictSettings(bundle=bundle.path, images=[str(tmp_path / "pictures")], top_k=12)).predictions
    assert rows is not None
    assert len(rows) == len(names)
    refused = [row.error is not None for row in rows]
    assert refused == [KINDS[name].tolerance is None for name in names]
    taken = tuple(key for key, form in FORMATS.items() if is_available(form))
    with client_of(load(bundle.path), formats=taken) as client:
        for row in rows:
            body = Path(str(row.path)).read_bytes()
            response = client.post("/predict?top_k=12", content=body)
            if row.error is not None:
                assert_problem(response, "unusable-image")
                assert row.error in response.json()["detail"]
                continue
            assert response.status_code == 200, response.json()
            found = {each["label"]: each["confidence"] for each in response.json()["top"]}
            assert found.keys() == set(LABELS)
            for each in row.top:
                assert abs(found[each.label] - each.confidence) < 1e-6


def test_every_route_answers_by_the_bundles_value_range(
    tmp_path: Path, client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/healthz")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex")
    bundle = make_pixel_bundle(tmp_path / "bundle", RANGES["12 bits"])
    classifier, kind = load(bundle.path), KINDS["PNG L of 12 bits"]
    twelve, sixteen = kind.write(pictures(40)[3], 1), KINDS["PNG L of 16 bits"].write(pictures(40)[3], 1)
    expected = classifier.classify(twelve)
    with client_of(classifier) as client:

        def everywhere(body: bytes) -> dict[str, Any]:
            """Responses of all routes."""
            text = base64.b64encode(body).decode()
            tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
            return {
                "predict": client.post("/predict", content=body),
                "batch": client.post("/predict/batch", files=[("file", body)]),
                "sagemaker": client.post("/invocations", content=body),
                "vertex": client.post("/vertex", json={"instances": [{"b64": text}]}),
                "open inference": client.post("/v2/models/quarters/infer", json={"inputs": [tensor]}),
            }

        found = {name: response.json() for name, response in everywhere(twelve).items()}
        assert found["predict"]["confidence"] == expected.confidence
        assert found["sagemaker"]["confidence"] == expected.confidence
        assert found["batch"]["results"][0]["confidence"] == expected.confidence
        assert found["vertex"]["predictions"][0]["confidence"] == expected.confidence
        probabilities = found["open inference"]["outputs"][0]["data"]
        assert np.array_equal(np.float32(probabilities), expected.probabilities)
        for name, response in everywhere(sixteen).items():
            assert "uint16 values lie between" in response.text, name
