"""Requests that no sane client sends, at every address: refused in the one envelope, never a fault of the service."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

HALF_CHARACTERS = (r"\ud800", r"\udfff\ud800")
OTHERS = (r"\u0000", r"\ufffe", r"\"", "é" * 5000)


@pytest.fixture(scope="module")
def client(client_of: Callable[..., TestClient]) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
        environment.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
        client = client_of(deadline_ms=60_000.0, threads=1, batching="off")
    with client:
        yield client


@pytest.fixture(scope="module")
def posts(client: TestClient) -> list[str]:
    """Every address that takes a POST."""
    paths = client.get("/openapi.json").json()["paths"]
    found = [path for path, operations in paths.items() if "post" in operations]
    return [path.replace("{name}", "colours").replace("{version}", "1") for path in found]


def no_fault(response: Any) -> None:
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        found = response.json()
        assert found["status"] == response.status_code
        assert found["type"].startswith("urn:lensmith:problem:")


def with_odd(text: str, image: str) -> Iterator[str]:
    """JSON bodies of all protocols with `text` somewhere."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}
    for wrong in ({"name": "ODD"}, {"datatype": "ODD"}, {"data": ["ODD"]}, {"ODD": 1}):
        yield json.dumps({"id": "ODD", "inputs": [{**tensor, **wrong}]})
    yield json.dumps({"id": "ODD", "inputs": [tensor]})
    yield json.dumps({"inputs": [tensor], "outputs": [{"name": "ODD"}]})
    yield json.dumps({"bundle": "ODD"})
    yield json.dumps({"instances": [{"b64": "ODD"}, {"b64": image, "key": "ODD"}, {"ODD": 1}, "ODD"]})
    yield json.dumps({"instances": [{"b64": image}], "parameters": {"top_k": "ODD", "ODD": 1}})
    yield from ('"ODD"', '["ODD"]', '{"ODD": 1}', "ODD", '{"a": "ODD')


@pytest.mark.parametrize("odd", [*HALF_CHARACTERS, *OTHERS])
def test_odd_characters_in_json_are_no_fault(odd: str, client: TestClient, posts: list[str], red_png: bytes) -> None:
    image = base64.b64encode(red_png).decode()
    for path in posts:
        for body in with_odd(odd, image):
            text = body.replace("ODD", odd)
            no_fault(client.post(path, content=text.encode(), headers={"content-type": "application/json"}))


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"instances":' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"instances":[{"b64":' + "9" * 5000 + "}]}",
        '{"inputs":[{"name":"image","datatype":"BYTES","shape":[' + "9" * 5000 + '],"data":[]}]}',
        '{"inputs":[{"name":"image","datatype":"FP32","shape":[1e400],"data":[1e999]}]}',
        '{"inputs":[{"name":"image","datatype":"FP32","shape":[1,3,32,32],"data":[NaN]}]}',
        '{"inputs":[{"name":"image","datatype":"FP32","shape":[-1,3,32,32],"data":[]}]}',
        '{"instances":[' + ",".join(['{"b64":""}'] * 10_000) + "]}",
    ],
    ids=lambda body: body[:20],
)
def test_json_without_measure_is_no_fault(body: str, client: TestClient, posts: list[str]) -> None:
    for path in posts:
        no_fault(client.post(path, content=body.encode(), headers={"content-type": "application/json"}))


ADDRESSES = [
    "/predict?top_k=%ED%A0%80", "/predict?model=%ED%A0%80%00", "/%ED%A0%80", "/predict?top_k=%00", "/predict/",
    "/v2/models/%ED%A0%80", "/v2/models/%00/infer", "/console/%00", "/console/..%2f..%2fapp.py", "/PREDICT",
    "/predict?" + "a=b&" * 5000, "/console/" + "a" * 5000,
]  # fmt: skip
HEADERS = [
    "Inference-Header-Content-Length", "Content-Length", "Content-Type", "Accept", "X-Request-ID", "Host",
    "Authorization", "Content-Encoding", "X-Amzn-SageMaker-Custom-Attributes",
]  # fmt: skip
VALUES = [
    "-1", "0", "9" * 5000, "²", "\t", "", "a;" * 5000, "multipart/form-data; boundary=" + "é" * 500, "*/*;q=x",
]  # fmt: skip


@pytest.mark.parametrize("path", ADDRESSES)
def test_odd_addresses_are_no_fault(path: str, client: TestClient, red_png: bytes) -> None:
    for method in ("GET", "POST", "PUT", "TRACE", "OPTIONS", "HEAD"):
        response = client.request(method, path, content=red_png)
        if method == "HEAD":
            assert response.status_code < 500
        elif response.headers["content-type"] == "application/problem+json":
            no_fault(response)
        else:
            assert response.status_code == 200
            assert path.startswith("/predict?")


def test_head_is_get_without_content_at_every_address(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ["/", "/openapi.json", *(path for path, asked in paths.items() if "get" in asked)]:
        filled = path.replace("{name}", "colours").replace("{version}", "1").replace("{model}", "colours")
        got, head = client.get(filled), client.head(filled)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    refused = client.head("/predict")
    assert (refused.status_code, refused.content, refused.headers["allow"]) == (405, b"", "POST")
    assert client.put("/livez").headers["allow"] == "GET, HEAD"


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_are_no_fault(name: str, client: TestClient, posts: list[str], red_png: bytes) -> None:
    for path in posts:
        for value in VALUES:
            for kind in (
                "application/octet-stream",
                "image/png",
                "multipart/form-data; boundary=x",
                "application/json",
            ):
                headers = {"content-type": kind.encode(), name.lower(): value.encode("latin-1")}
                no_fault(client.post(path, content=red_png, headers=headers))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, deflate"])
def test_a_compressed_body_is_refused_as_such_everywhere(encoding: str, client: TestClient, posts: list[str]) -> None:
    for path in posts:
        for name, value in (("content-encoding", encoding), ("transfer-encoding", f"{encoding}, chunked")):
            response = client.post(path, content=iter([gzip.compress(b"{}")]), headers={name: value})
            no_fault(response)
            assert response.status_code == 415, path
            assert "Content-Encoding" in response.json()["detail"]
            assert response.headers["accept-encoding"] == "identity"


def test_a_body_that_is_said_to_be_as_it_is_is_taken(client: TestClient, red_png: bytes) -> None:
    assert client.post("/predict", content=red_png, headers={"content-encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    "parameters", ['name="file"', "name=\"file\"; filename*=UTF-8''%e5%86%99.png", 'name="file"; filename=""']
)
def test_a_form_that_names_its_file_otherwise_or_not_is_answered(
    parameters: str, client: TestClient, red_png: bytes
) -> None:
    body = f"--X\r\nContent-Disposition: form-data; {parameters}\r\n\r\n".encode() + red_png + b"\r\n--X--\r\n"
    for path in ("/predict", "/predict/batch"):
        response = client.post(path, content=body, headers={"content-type": "multipart/form-data; boundary=X"})
        assert response.status_code == 200, response.text
