"""SageMaker's contract: by hand, and with a process that is started as the platform starts it."""

import base64
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fixtures.serving import assert_problem
from lensmith.bundle.format import Bundle

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


def in_json(*images: bytes, **more: Any) -> dict[str, Any]:
    return {"instances": [{"b64": base64.b64encode(each).decode()} for each in images], **more}


@pytest.mark.parametrize("kind", ["image/png", "application/x-image", "application/octet-stream", ""])
def test_an_image_as_the_body_is_answered_as_by_predict(client: TestClient, red_png: bytes, kind: str) -> None:
    answer = client.post("/invocations", content=red_png, headers={"content-type": kind}).json()
    expected = client.post("/predict", content=red_png).json()
    for varying in ("request_id", "timings_ms"):
        assert answer.pop(varying)
        assert expected.pop(varying)
    assert answer == expected


def test_a_form_and_instances_are_answered_each_in_its_place(client: TestClient, red_png: bytes) -> None:
    form = client.post("/invocations", files=[("file", red_png), ("file", b"no image")])
    instances = client.post("/invocations", json=in_json(red_png, b"no image"))
    for response in (form, instances):
        good, bad = response.json()["results"]
        assert (good["label"], good["problem"], bad["label"]) == ("red", None, None)
        assert bad["problem"]["status"] in (415, 422)
    assert client.post("/invocations", json=in_json(red_png)).json()["results"][0]["label"] == "red"


def test_custom_attributes_and_parameters_say_how_many_classes_and_which_model(
    client: TestClient, red_png: bytes
) -> None:
    def top(headers: dict[str, str]) -> int:
        return len(client.post("/invocations", content=red_png, headers=headers).json()["top"])

    assert top({}) == 3
    assert top({ATTRIBUTES: "top_k=1"}) == 1
    assert top({ATTRIBUTES: "c000b4f9-df62; tenant=a, top_k=2,model=colours@1"}) == 2
    assert top({ATTRIBUTES: "stop_k=1"}) == 3
    answer = client.post(
        "/invocations", json=in_json(red_png, parameters={"top_k": 1}), headers={ATTRIBUTES: "top_k=2"}
    )
    assert len(answer.json()["results"][0]["top"]) == 1
    for attribute, kind in (
        ("top_k=0", "invalid-request"),
        ("top_k=all", "invalid-request"),
        ("model=x", "no-such-model"),
    ):
        assert_problem(client.post("/invocations", content=red_png, headers={ATTRIBUTES: attribute}), kind)
    assert_problem(client.post("/invocations", json=in_json(red_png, parameters={"model": "x"})), "no-such-model")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200), ("*/*", 200), ("text/csv, application/json;q=0.5", 200), ("application/*", 200),
        ("", 200), ("text/csv", 406), ("application/x-image", 406),
    ],
)  # fmt: skip
def test_answers_are_json_and_other_wishes_are_refused(
    client: TestClient, red_png: bytes, accept: str, status: int
) -> None:
    assert client.post("/invocations", content=red_png, headers={"accept": accept}).status_code == status


BAD: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "invalid-request"),
    "no JSON": (b"{", "invalid-request"),
    "another shape": (b'{"inputs": []}', "invalid-request"),
    "no instances": ({"instances": []}, "invalid-request"),
    "an instance that is text": ({"instances": ["aGk="]}, "invalid-request"),
    "an instance with another name": ({"instances": [{"content": "aGk="}]}, "invalid-request"),
    "a number for base64": ({"instances": [{"b64": 1}]}, "invalid-request"),
    "a list for parameters": (in_json(b"x", parameters=[]), "invalid-request"),
    "a top_k of nothing": (in_json(b"x", parameters={"top_k": 0}), "invalid-request"),
    "a top_k in words": (in_json(b"x", parameters={"top_k": "3"}), "invalid-request"),
    "more instances than allowed": (in_json(*[b"x"] * 33), "invalid-request"),
    "far more instances than allowed": (b'{"instances": [' + b"1," * 100_000 + b"1]}", "invalid-request"),
    "deep nesting": (b'{"instances": ' + b"[" * 100_000, "invalid-request"),
    "more bytes than allowed": (b" " * 25_000_001, "too-large"),
}


@pytest.mark.parametrize("what", BAD)
def test_every_bad_json_body_gets_its_problem(client: TestClient, what: str) -> None:
    body, kind = BAD[what]
    content = body if isinstance(body, bytes) else json.dumps(body)
    assert_problem(
        client.post("/invocations", content=content, headers={"content-type": "application/json; charset=utf-8"}), kind
    )


def test_bad_images_as_the_body_get_their_problem(client: TestClient) -> None:
    assert_problem(client.post("/invocations", content=b""), "no-image")
    assert_problem(client.post("/invocations", content=b"GIF89a"), "not-jpeg-or-png")
    assert_problem(client.post("/invocations", content=b"\xff\xd8\xff"), "unusable-image")
    assert_problem(client.post("/invocations", content=b"\xff\xd8\xff".ljust(5_000_001)), "too-large")
    assert_problem(client.post("/invocations", files={"image": b"x"}), "no-image")


def test_ping_fails_while_the_service_starts_or_stops(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/ping").status_code == 200
    for phase, kind in (("starting", "not-ready"), ("draining", "draining")):
        monkeypatch.setattr(client.app.state.service, "phase", phase)
        assert_problem(client.get("/ping"), kind)


def test_instances_count_against_their_callers_quota(client_of: Callable[..., TestClient], red_png: bytes) -> None:
    with client_of(quota="3/hour") as client:
        assert client.post("/invocations", json=in_json(red_png, red_png)).status_code == 200
        assert_problem(client.post("/invocations", json=in_json(red_png, red_png)), "over-quota")


@pytest.mark.slow
def test_a_container_started_as_sagemaker_does_keeps_its_contract(
    colour_bundle: Bundle,
    red_png: bytes,
    noise_jpeg: bytes,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("LENSMITH_SERVE_BUNDLE", str(colour_bundle.path))
    monkeypatch.setenv("LENSMITH_SERVE_PORT", "8000")  # the platform's takes precedence
    monkeypatch.setenv("LENSMITH_SERVE_DEADLINE_MS", "20000")
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(port))
    process = subprocess.Popen([sys.executable, "-m", "lensmith", "serve"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == f"lensmith serving colours on http://127.0.0.1:{port}"
    stop = threading.Event()
    answered: list[int] = []

    def load() -> None:
        mine = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not stop.is_set():
            mine.request("POST", "/invocations", noise_jpeg, {"content-type": "image/jpeg"})
            response = mine.getresponse()
            response.read()
            answered.append(response.status)

    clients = [threading.Thread(target=load) for _ in range(8)]
    for each in clients:
        each.start()
    platform = http.client.HTTPConnection("127.0.0.1", port, timeout=2)  # what SageMaker waits for /ping
    try:
        while len(answered) < 20:
            time.sleep(0.01)
        for _ in range(20):
            platform.request("GET", "/ping")
            response = platform.getresponse()
            response.read()
            assert response.status == 200
    finally:
        stop.set()
        for each in clients:
            each.join()
    assert set(answered) == {200}
    platform.request("POST", "/invocations", red_png, {"content-type": "image/png", "accept": "application/json"})
    assert json.load(platform.getresponse())["label"] == "red"
    process.terminate()  # and SIGKILL 30 s later
    assert process.wait(30) == 0
    process.stdout.close()
