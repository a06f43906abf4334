"""The OpenAPI document and the protocols' routes say the same."""

import base64
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        at: Any = document
        for name in reference.removeprefix("#/").split("/"):
            at = at[name]


def test_every_parameter_of_an_address_is_declared(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def infer(text: str) -> dict[str, Any]:
    return {"json": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}}


def test_answers_good_and_bad_are_as_documented(client: TestClient, document: dict[str, Any], red_png: bytes) -> None:
    text = base64.b64encode(red_png).decode()
    instances = {"instances": [{"b64": text}, {"image": {"b64": "?"}}]}
    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    asked: list[tuple[str, str, dict[str, Any], int]] = [
        ("get", "/v2", {}, 200),
        ("get", "/v2/health/live", {}, 200),
        ("get", "/v2/health/ready", {}, 200),
        *(("get", path, {}, 200) for path in (model, versioned, f"{model}/ready", f"{versioned}/ready")),
        *(("post", f"{path}/infer", infer(text), 200) for path in (model, versioned)),
        ("post", f"{model}/infer", infer("?"), 422),
        ("post", f"{model}/infer", infer("R0lG"), 415),
        ("get", "/ping", {}, 200),
        ("post", "/invocations", {"json": instances}, 200),
        ("post", "/invocations", {"content": red_png}, 200),
        ("post", "/invocations", {"content": red_png, "headers": {"accept": "text/csv"}}, 406),
    ]  # fmt: skip
    for method, path, request, status in asked:
        response = client.request(method, path.format(name="colours", version="1"), **request)
        assert response.status_code == status
        kind = response.headers["content-type"]
        schema = document["paths"][path][method]["responses"][str(status)]["content"][kind]["schema"]
        jsonschema.validate(response.json(), {**schema, "components": document["components"]})
        if "json" in request and status == 200:
            body = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
            jsonschema.validate(request["json"], body)
