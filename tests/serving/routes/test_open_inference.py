"""The Open Inference Protocol, asked by hand: what it answers, and what each bad request is told."""

import base64
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fixtures.serving import assert_problem
from lensmith.bundle.format import Bundle
from lensmith.core.version import __version__
from lensmith.inference.classifier import Classifier
from lensmith.serving.routes.open_inference_request import MAX_VALUES

INFER = "/v2/models/colours/infer"
LENGTH = "inference-header-content-length"


def images(*encoded: bytes, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(each).decode() for each in encoded]
    return {"name": "image", "datatype": "BYTES", "shape": [len(encoded)], "data": data, **more}


def tensor(values: Any, **more: Any) -> dict[str, Any]:
    array = np.asarray(values, dtype=np.float32)
    return {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist(), **more}


def binary(given: dict[str, Any], raw: bytes, **more: Any) -> dict[str, Any]:
    """A request whose one input lies behind its JSON part."""
    given = {**given, "parameters": {**given.get("parameters", {}), "binary_data_size": len(raw)}}
    del given["data"]
    head = json.dumps({"inputs": [given], **more}).encode()
    return {"content": head + raw, "headers": {LENGTH: str(len(head))}}


def elements(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in values)


@pytest.fixture(scope="module")
def pictures(shared_colours: Path) -> list[bytes]:
    return [(shared_colours / colour / "001.jpg").read_bytes() for colour in ("red", "green", "blue")]


@pytest.fixture(scope="module")
def prepared(classifier: Classifier, pictures: list[bytes]) -> Any:
    return np.stack([classifier.prepare(each) for each in pictures])


def test_the_server_and_its_model_say_what_they_are(client: TestClient) -> None:
    assert client.get("/v2").json() == {
        "name": "lensmith",
        "version": __version__,
        "extensions": ["binary_tensor_data", "classification"],
    }
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    metadata = client.get("/v2/models/colours")
    assert metadata.json() == client.get("/v2/models/colours/versions/1").json()
    assert metadata.json() == {
        "name": "colours",
        "versions": ["1"],
        "platform": "lensmith_onnxruntime",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "class_id", "datatype": "INT64", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    assert client.get("/v2/models/colours/ready").json() == {"name": "colours", "ready": True}


def test_images_and_tensors_in_json_and_binary_get_the_classifiers_own_answer(
    client: TestClient, classifier: Classifier, pictures: list[bytes], prepared: Any
) -> None:
    for count in (1, 3):
        requests = [
            {"json": {"inputs": [images(*pictures[:count])]}},
            {"json": {"inputs": [images(*pictures[:count], shape=[count, 1])]}},
            {"json": {"inputs": [images(*pictures[:count], parameters={"content_type": "base64"})]}},
            binary(images(*pictures[:count]), elements(*pictures[:count])),
            {"json": {"inputs": [tensor(prepared[:count])]}},
            {"json": {"inputs": [tensor(prepared[:count], data=prepared[:count].tolist())]}},
            binary(tensor(prepared[:count]), prepared[:count].tobytes()),
        ]
        offline = [classifier.classify(each) for each in pictures[:count]]
        for request in requests:
            response = client.post(INFER, **request)
            assert response.status_code == 200, response.text
            answer = response.json()
            assert (answer["model_name"], answer["model_version"]) == ("colours", "1")
            assert answer["id"] == response.headers["x-request-id"]
            probabilities, class_id, label = answer["outputs"]
            assert (probabilities["name"], probabilities["datatype"]) == ("probabilities", "FP32")
            assert probabilities["shape"] == [count, 3]
            expected = np.concatenate([each.probabilities for each in offline if each.probabilities is not None])
            assert np.array_equal(np.float32(probabilities["data"]), expected)
            assert class_id == {
                "name": "class_id", "datatype": "INT64", "shape": [count], "data": [each.class_id for each in offline],
            }  # fmt: skip
            assert label == {
                "name": "label", "datatype": "BYTES", "shape": [count], "data": [each.label for each in offline],
            }  # fmt: skip


def test_only_the_outputs_that_are_wanted_come_each_in_the_form_that_it_is_wanted_in(
    client: TestClient, pictures: list[bytes]
) -> None:
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "class_id"}]
    request = {
        "id": "mine", "inputs": [images(*pictures)], "outputs": wanted, "parameters": {"binary_data_output": True},
    }  # fmt: skip
    response = client.post(INFER, json=request)
    assert response.headers["content-type"] == "application/octet-stream"
    head = int(response.headers[LENGTH])
    assert json.loads(response.content[:head]) == {
        "model_name": "colours",
        "model_version": "1",
        "id": "mine",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [3], "data": ["red", "green", "blue"]},
            {"name": "class_id", "datatype": "INT64", "shape": [3], "parameters": {"binary_data_size": 24}},
        ],
    }
    assert np.frombuffer(response.content[head:], "<i8").tolist() == [2, 1, 0]


def test_classification_names_the_likeliest_classes_as_text(client: TestClient, red_png: bytes) -> None:
    wanted = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (output,) = client.post(INFER, json={"inputs": [images(red_png)], "outputs": wanted}).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    confidence, class_id, label = output["data"][0].split(":")
    assert (class_id, label) == ("2", "red")
    assert 0.9 < float(confidence) <= 1
    wanted[0]["parameters"] = {"classification": 99}
    (output,) = client.post(INFER, json={"inputs": [images(red_png)], "outputs": wanted}).json()["outputs"]
    assert output["shape"] == [1, 3]


def test_the_model_beside_is_asked_by_its_name_and_version(
    client_of: Callable[..., TestClient], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    with client_of(beside=remake("other", version="2").path) as client:
        assert client.get("/v2/models/colours").json()["versions"] == ["1", "2"]
        for version in ("1", "2"):
            answer = client.post(f"/v2/models/colours/versions/{version}/infer", json={"inputs": [images(red_png)]})
            assert answer.json()["model_version"] == version
            assert client.get(f"/v2/models/colours/versions/{version}/ready").status_code == 200
        assert_problem(client.get("/v2/models/colours/versions/3"), "no-such-model")


ZEROS = np.zeros((1, 3, 32, 32), np.float32)
PNG = b"\x89PNG\r\n\x1a\n"
ONE_IMAGE = json.dumps({"inputs": [images(PNG)]})


def one(given: Any, **more: Any) -> dict[str, Any]:
    return {"json": {"inputs": [given], **more}}


def said(text: str | bytes) -> dict[str, Any]:
    return {"content": text}


def with_first(value: float) -> Any:
    broken = ZEROS.copy()
    broken[0, 0, 0, 0] = value
    return broken


INVALID: dict[str, dict[str, Any]] = {
    "nothing": said(""),
    "no JSON": said("{"),
    "no object": said("[]"),
    "not UTF-8": said(b'{"inputs": ["\xff"]}'),
    "half a surrogate": said('{"id": "\\ud800", "inputs": []}'),
    "nested without end": said('{"inputs": ' + "[" * 70_000),
    "nested data": said(json.dumps({"inputs": [tensor(ZEROS, data=[7])]}).replace("[7]", "[" * 150 + "]" * 150)),
    "thousands of objects": said('{"inputs": [' + ",".join(["{}"] * 10_000) + "]}"),
    "no inputs": {"json": {"inputs": []}},
    "both inputs": {"json": {"inputs": [images(PNG), tensor(ZEROS)]}},
    "an unknown input": one({**tensor(ZEROS), "name": "pixels"}),
    "an image that is no BYTES": one(images(PNG, datatype="UINT8")),
    "a tensor of doubles": one(tensor(ZEROS, datatype="FP64")),
    "a shape of nothing": one(images(PNG, shape=[0])),
    "a shape below nothing": one(images(PNG, shape=[-1])),
    "a shape beyond all": one(images(PNG, shape=[2**62, 1])),
    "images of two to a row": one(images(PNG, PNG, shape=[1, 2])),
    "fewer images than said": one(images(PNG, shape=[2])),
    "more images than allowed": one(images(*[PNG] * 5)),
    "no data": one({"name": "image", "datatype": "BYTES", "shape": [1]}),
    "shared memory": one(
        {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"shared_memory_region": "x"}}
    ),
    "no base64": one(images(PNG, data=["!!!"])),
    "base64 without its padding": one(images(PNG, data=["iVBORw0KGgo"])),
    "letters of other scripts": one(images(PNG, data=["ä"])),
    "numbers as images": one(images(PNG, data=[1])),
    "another content type": one(images(PNG, parameters={"content_type": "hex"})),
    "a tensor of another size": one(tensor(np.zeros((1, 3, 16, 16)))),
    "a tensor without a batch": one(tensor(np.zeros((3, 32, 32)))),
    "fewer numbers than said": one(tensor(ZEROS, data=[0.0])),
    "words for numbers": one(tensor(ZEROS, data=["0"] * 3072)),
    "nulls for numbers": one(tensor(ZEROS, data=[None] * 3072)),
    "truth for numbers": one(tensor(ZEROS, data=[True] * 3072)),
    "rows of different lengths": one(tensor(ZEROS, data=[[0.0], [0.0, 1.0]])),
    "a number that is none": said(json.dumps({"inputs": [tensor(with_first(np.nan))]})),
    "a number beyond all": said(json.dumps({"inputs": [tensor(ZEROS, data=[7] + [0] * 3071)]}).replace("7", "1e999")),
    "a number beyond FP32": one(tensor(ZEROS, data=[1e39] + [0] * 3071)),
    "an integer beyond 64 bits": one(tensor(ZEROS, data=[10**30] + [0] * 3071)),
    "an unknown output": one(images(PNG), outputs=[{"name": "logits"}]),
    "classification of labels": one(images(PNG), outputs=[{"name": "label", "parameters": {"classification": 1}}]),
    "classification of nothing": one(
        images(PNG), outputs=[{"name": "probabilities", "parameters": {"classification": 0}}]
    ),
    "an output in shared memory": one(
        images(PNG), outputs=[{"name": "label", "parameters": {"shared_memory_region": "x"}}]
    ),
    "binary data that is not there": one(images(PNG, data=None, parameters={"binary_data_size": 9})),
    "binary data that nobody claims": {"content": ONE_IMAGE + "x", "headers": {LENGTH: str(len(ONE_IMAGE))}},
    "data twice": one(images(PNG, parameters={"binary_data_size": 0})),
    "a header longer than the body": {"content": "{}", "headers": {LENGTH: "3"}},
    "a header within the JSON": {**one(images(PNG)), "headers": {LENGTH: "3"}},
    "a header below nothing": {**one(images(PNG)), "headers": {LENGTH: "-1"}},
    "a header in words": {**one(images(PNG)), "headers": {LENGTH: "all"}},
    "a header beyond all": {**one(images(PNG)), "headers": {LENGTH: "9" * 11}},
    "a header of 5000 digits": {**one(images(PNG)), "headers": {LENGTH: "9" * 5000}},
    "a cut element": binary(images(PNG), elements(PNG)[:-1]),
    "a cut length": binary(images(PNG), b"\0\0"),
    "an element longer than all": binary(images(PNG), b"\xff\xff\xff\xff" + PNG),
    "an element too many": binary(images(PNG), elements(PNG, PNG)),
    "a million empty elements": binary(images(PNG), bytes(4 * 10_000)),
    "a binary tensor cut": binary(tensor(ZEROS), ZEROS.tobytes()[:-1]),
    "a binary NaN": binary(tensor(ZEROS), with_first(np.nan).tobytes()),
    "a binary infinity": binary(tensor(ZEROS), with_first(-np.inf).tobytes()),
}
BAD = {
    **{name: (request, "invalid-request") for name, request in INVALID.items()},
    "an empty image": (one(images(b"")), "no-image"),
    "a GIF": (one(images(b"GIF89a")), "not-jpeg-or-png"),
    "a cut PNG": (one(images(PNG)), "unusable-image"),
    "a cut PNG among others": (one(images(PNG, PNG)), "unusable-image"),
    "an image of too many bytes": (one(images(PNG.ljust(10_001))), "too-large"),
    "a body of too many bytes": (said(" " * 90_000), "too-large"),
    "a JSON part of too many bytes": ({"content": ONE_IMAGE.ljust(80_000), "headers": {LENGTH: "80000"}}, "too-large"),
}


@pytest.fixture(scope="module")
def strict_client(client_of: Callable[..., TestClient]) -> Iterator[TestClient]:
    """A service with small limits."""
    with client_of(max_bytes=10_000, max_images=4) as client:
        yield client


@pytest.mark.parametrize("what", BAD)
def test_every_bad_request_gets_its_problem_with_an_error_for_clients_of_the_protocol(
    strict_client: TestClient, what: str
) -> None:
    request, kind = BAD[what]
    response = strict_client.post(INFER, **request)
    assert_problem(response, kind)
    assert response.json()["error"] == response.json()["detail"]
    assert kind != "too-large" or "--max-bytes" in response.json()["detail"]


def test_more_values_than_may_be_read_on_the_event_loop_are_not_read(client: TestClient) -> None:
    many = (
        '{"inputs": [' + "1," * MAX_VALUES + "1]}",
        *(f'{{"x": [{each * 30_000}1]}}' for each in ("[[],", '{"":1},')),
    )
    for body in many:
        response = client.post(INFER, content=body)
        assert_problem(response, "invalid-request")
        assert "1,000,000 values" in response.json()["detail"]


def test_unknown_models_addresses_and_methods_get_their_problem(client: TestClient) -> None:
    for path in ("", "/ready", "/versions/1", "/versions/1/ready"):
        assert_problem(client.get(f"/v2/models/birds{path}"), "no-such-model")
    assert_problem(client.post("/v2/models/birds/infer", json={}), "no-such-model")
    assert_problem(client.get("/v2/models/colours/versions/7"), "no-such-model")
    assert_problem(client.get("/v2/nothing"), "not-found")
    assert_problem(client.get(INFER), "method-not-allowed")
    assert_problem(client.post("/v2"), "method-not-allowed")


def test_a_problem_elsewhere_has_no_error_member(client: TestClient) -> None:
    assert "error" not in client.post("/predict", content=b"").json()
    assert "error" not in client.get("/v3").json()


def test_the_problem_of_one_image_of_several_names_it(client: TestClient, red_png: bytes) -> None:
    detail = client.post(INFER, json={"inputs": [images(red_png, PNG)]}).json()["detail"]
    assert detail.startswith("Image 1: A complete image file was expected.")


def test_a_service_that_starts_or_stops_is_live_but_not_ready(
    client: Any, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = client.app.state.service
    for phase, kind in (("starting", "not-ready"), ("draining", "draining")):
        monkeypatch.setattr(service, "phase", phase)
        assert client.get("/v2/health/live").status_code == 200
        assert_problem(client.get("/v2/health/ready"), kind)
        assert_problem(client.get("/v2/models/colours/ready"), kind)
        assert client.get("/v2/models/colours").status_code == 200
    assert client.post(INFER, json={"inputs": [images(red_png)]}).status_code == 200
    service.phase = "starting"
    assert_problem(client.post(INFER, json={"inputs": [images(red_png)]}), "not-ready")


def test_images_count_against_their_callers_quota(client_of: Callable[..., TestClient], red_png: bytes) -> None:
    with client_of(quota="3/hour") as client:
        assert client.post(INFER, json={"inputs": [images(red_png, red_png)]}).status_code == 200
        assert_problem(client.post(INFER, json={"inputs": [images(red_png, red_png)]}), "over-quota")
        assert client.post(INFER, json={"inputs": [images(red_png)]}).status_code == 200
