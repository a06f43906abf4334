"""The Lambda handler, called with events as AWS sends them."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle.format import Bundle
from lensmith.errors import BundleError, ServiceError
from lensmith.serving.aws_lambda import LambdaHandler

Event = dict[str, Any]
HEADERS = {
    "Accept": "*/*",
    "Host": "abcdefghij.execute-api.eu-central-1.amazonaws.com",
    "User-Agent": "curl/8.9.1",
    "X-Amzn-Trace-Id": "Root=1-68a2f3c1-0123456789abcdef01234567",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Proto": "https",
}


def version_2(method: str, path: str, body: bytes | None = None, query: str = "", **headers: str) -> Event:
    """Of an HTTP API of API Gateway, or a function URL: payload format 2.0."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in {**HEADERS, **headers}.items()},
        "requestContext": {
            "domainName": HEADERS["Host"],
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7"},
            "requestId": "PqRsTuVwXyZ0123=",
            "stage": "$default",
        },
        "isBase64Encoded": body is not None,
        **({} if body is None else {"body": base64.b64encode(body).decode()}),
    }


def version_1(method: str, path: str, body: bytes | None = None, query: str = "", **headers: str) -> Event:
    """Of a REST API of API Gateway, whose binary media types hold */*."""
    given = {**HEADERS, **headers}
    pairs = dict(each.split("=", 1) for each in query.split("&")) if query else None
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": given,
        "multiValueHeaders": {name: [value] for name, value in given.items()},
        "queryStringParameters": pairs,
        "multiValueQueryStringParameters": pairs and {name: [value] for name, value in pairs.items()},
        "pathParameters": {"proxy": path.removeprefix("/")},
        "requestContext": {
            "domainName": HEADERS["Host"],
            "httpMethod": method,
            "identity": {"sourceIp": "203.0.113.7", "userAgent": "curl/8.9.1"},
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "0a1b2c3d-0000-4000-8000-1234567890ab",
            "resourcePath": "/{proxy+}",
            "stage": "prod",
        },
        "body": None if body is None else base64.b64encode(body).decode(),
        "isBase64Encoded": body is not None,
    }


Shape = Callable[..., Event]


@pytest.fixture(scope="module")
def handler(colour_bundle: Bundle) -> Iterator[LambdaHandler]:
    handler = LambdaHandler(colour_bundle.path, insecure=True)
    yield handler
    handler.close()


@pytest.fixture(params=[version_2, version_1])
def shape(request: pytest.FixtureRequest) -> Shape:
    made: Shape = request.param
    return made


@pytest.fixture
def red(shared_colours: Path) -> bytes:
    return (shared_colours / "red" / "000.png").read_bytes()


def test_an_image_in_an_event_is_answered_again_and_again(handler: LambdaHandler, shape: Shape, red: bytes) -> None:
    for _ in range(3):
        answer = handler(shape("POST", "/predict", red, "top_k=2", **{"Content-Type": "image/png"}), None)
        assert answer["statusCode"] == 200
        assert answer["headers"]["content-type"] == "application/json"
        assert not answer["isBase64Encoded"]
        found = json.loads(answer["body"])
        assert (found["label"], len(found["top"])) == ("red", 2)
        assert answer["headers"]["x-request-id"] == found["request_id"]
        json.dumps(answer)  # as Lambda does


def test_a_form_of_several_images_is_answered(handler: LambdaHandler, shape: Shape, red: bytes) -> None:
    part = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n'
    body = part % red + part % b"no image" + b"--frontier--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=frontier"}
    good, bad = json.loads(handler(shape("POST", "/predict/batch", body, **kind), None)["body"])["results"]
    assert (good["label"], bad["label"]) == ("red", None)


def test_problems_come_as_text_with_their_status(handler: LambdaHandler, shape: Shape) -> None:
    for event, status in (
        (shape("POST", "/predict", b"GIF89a"), 415),
        (shape("POST", "/predict"), 422),
        (shape("GET", "/predict"), 405),
        (shape("GET", "/nothing"), 404),
        (shape("POST", "/admin/model", b"{}"), 403),
    ):
        answer = handler(event, None)
        assert (answer["statusCode"], answer["isBase64Encoded"]) == (status, False)
        assert answer["headers"]["content-type"] == "application/problem+json"
        assert json.loads(answer["body"])["status"] == status


def test_binary_answers_come_as_base64(handler: LambdaHandler, shape: Shape, red: bytes) -> None:
    request = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(red).decode()]}],
        "outputs": [{"name": "class_id", "parameters": {"binary_data": True}}],
    }
    answer = handler(shape("POST", "/v2/models/colours/infer", json.dumps(request).encode()), None)
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True)
    body = base64.b64decode(answer["body"])
    assert body[int(answer["headers"]["inference-header-content-length"]) :] == (2).to_bytes(8, "little")


def test_health_metadata_and_page_are_there(handler: LambdaHandler, shape: Shape) -> None:
    assert json.loads(handler(shape("GET", "/readyz"), None)["body"]) == {"status": "ready"}
    assert json.loads(handler(shape("GET", "/model"), None)["body"])["name"] == "colours"
    page = handler(shape("GET", "/"), None)
    assert page["headers"]["content-type"].startswith("text/html")
    assert "<html" in page["body"]


def test_a_stage_before_the_path_is_taken_off(colour_bundle: Bundle, handler: LambdaHandler) -> None:
    event = version_2("GET", "/prod/readyz")
    assert handler(event, None)["statusCode"] == 404
    other = LambdaHandler(colour_bundle.path, base_path="/prod", insecure=True)
    assert other(event, None)["statusCode"] == 200
    assert handler(version_2("GET", "/readyz"), None)["statusCode"] == 200  # each has a loop of its own
    other.close()


def test_a_token_is_asked_for_where_a_key_is_named(
    colour_bundle: Bundle, shape: Shape, red: bytes, tmp_path: Path
) -> None:
    from lensmith import api

    secret = tmp_path / "secret"
    token = api.token("camera", secret_file=secret).text
    handler = LambdaHandler(colour_bundle.path, jwt_secret_file=secret)
    assert handler(shape("POST", "/predict", red), None)["statusCode"] == 401
    event = shape("POST", "/predict", red, Authorization=f"Bearer {token}")
    assert handler(event, None)["statusCode"] == 200
    handler.close()


def test_without_a_key_the_open_door_has_to_be_said(colour_bundle: Bundle) -> None:
    with pytest.raises(ServiceError, match="insecure=True"):
        LambdaHandler(colour_bundle.path)


def test_a_bundle_that_is_none_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        LambdaHandler(tmp_path, insecure=True)
