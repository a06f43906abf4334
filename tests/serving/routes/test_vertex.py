"""Vertex AI's contract for custom containers."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fixtures.serving import assert_problem
from lensmith.serving.problems import TYPE_PREFIX


def in_base64(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


PREDICT = "/v1/endpoints/1/deployedModels/2:predict"
ClientOf = Callable[..., TestClient]


@pytest.fixture(scope="module")
def vertex(client_of: ClientOf) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIP_HEALTH_ROUTE", "/healthz")
        environment.setenv("AIP_PREDICT_ROUTE", PREDICT)
        client = client_of()
    with client:
        yield client


def test_instances_of_both_shapes_are_answered_in_their_order(vertex: TestClient, shared_colours: Path) -> None:
    red, blue = ((shared_colours / name / "000.png").read_bytes() for name in ("red", "blue"))
    body = {"instances": [in_base64(red), {"image": in_base64(blue)}], "parameters": {"top_k": 1}}
    answer = vertex.post(PREDICT, json=body)
    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert (first["label"], second["label"]) == ("red", "blue")
    assert [len(each["top"]) for each in (first, second)] == [1, 1]
    assert vertex.post(PREDICT, json={"instances": [in_base64(red)]}).json()["predictions"][0]["top"][2]["label"]


def test_a_bad_instance_has_its_problem_in_its_place(vertex: TestClient, red_png: bytes) -> None:
    body = {"instances": [in_base64(b"GIF89a"), {"b64": "?"}, in_base64(red_png), in_base64(red_png[:60])]}
    predictions = vertex.post(PREDICT, json=body).json()["predictions"]
    kinds = [each["problem"] and each["problem"]["type"].removeprefix(TYPE_PREFIX) for each in predictions]
    assert kinds == ["not-jpeg-or-png", "invalid-request", None, "unusable-image"]
    assert predictions[2]["label"] == "red"


@pytest.mark.parametrize(
    "body",
    [{}, [], {"instances": {}}, {"instances": [{"image": "aGk="}]}, {"instances": [{"b64": "aGk="}], "parameters": 3}],
)
def test_a_body_of_another_shape_is_refused_as_a_whole(vertex: TestClient, body: Any) -> None:
    assert_problem(vertex.post(PREDICT, json=body), "invalid-request")


def test_health_says_when_not_to_send(vertex: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vertex.get("/healthz").status_code == 200
    monkeypatch.setattr(vertex.app.state.service, "phase", "draining")
    assert_problem(vertex.get("/healthz"), "draining")


def test_an_address_that_vertex_names_takes_the_place_of_lensmiths_own(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, red_png: bytes
) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/readyz")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/predict")
    with client_of() as client:
        assert client.post("/predict", json={"instances": [in_base64(red_png)]}).json()["predictions"]
        assert_problem(client.post("/predict", content=red_png), "invalid-request")
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.post("/predict/batch", files={"file": red_png}).status_code == 200
        paths = client.get("/openapi.json").json()["paths"]
        assert list(paths["/predict"]["post"]["requestBody"]["content"]) == ["application/json"]


def test_with_authentication_predictions_need_a_token_and_health_none(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", "a secret of more than thirty-two bytes")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/healthz")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex")
    with client_of() as client:
        assert client.get("/healthz").status_code == 200
        assert_problem(client.post("/vertex", json={}), "unauthenticated")
        assert_problem(client.post("/v2/models/colours/infer", json={}), "unauthenticated")
        assert client.get("/v2").json()["error"] == client.get("/v2").json()["detail"]
        assert_problem(client.post("/invocations", json={}), "unauthenticated")
        for open_to_all in ("/ping", "/v2/health/live", "/v2/health/ready"):
            assert client.get(open_to_all).status_code == 200
