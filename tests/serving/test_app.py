"""What the routes answer, good and bad, over ASGI."""

import asyncio
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from starlette.requests import Request

from fixtures.serving import BlockingEngine, assert_problem
from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.inference.classifier import Classifier, load
from lensmith.inference.engine import FakeEngine
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.problems import KINDS, ProblemError

pytestmark = pytest.mark.anyio

AppOf = Callable[..., FastAPI]
ClientOf = Callable[..., TestClient]


def test_raw_and_multipart_bodies_get_the_answer_that_the_classifier_gives_offline(
    client: TestClient, classifier: Classifier, shared_colours: Path
) -> None:
    for file in sorted(shared_colours.rglob("00[01].*")):
        encoded = file.read_bytes()
        raw = client.post("/predict", content=encoded)
        form = client.post("/predict", files={"file": (file.name, encoded)})
        assert (raw.status_code, form.status_code) == (200, 200)
        offline = classifier.classify(encoded)
        expected = [(each.class_id, each.label, each.confidence) for each in offline.top]
        for answer in (raw.json(), form.json()):
            # Equal to the last bit: the service runs the same code on the same pixels.
            assert [(each["class_id"], each["label"], each["confidence"]) for each in answer["top"]] == expected
            assert (answer["class_id"], answer["label"], answer["confidence"]) == expected[0]
            assert answer["label"] == file.parent.name


def test_an_answer_names_the_model_the_request_and_where_the_time_went(client: TestClient, red_png: bytes) -> None:
    response = client.post("/predict", content=red_png)
    answer = response.json()
    fields = {"class_id", "label", "confidence", "abstained", "top", "model", "request_id", "timings_ms"}
    assert set(answer) == fields
    assert answer["model"] == {"name": "colours", "version": "1"}
    assert answer["request_id"] == response.headers["x-request-id"]
    timings = answer["timings_ms"]
    assert 0 < timings["decode"] + timings["inference"] <= timings["total"]


def test_a_guess_below_the_models_threshold_is_marked_and_counted(
    client_of: ClientOf, unsure_bundle: Bundle, red_png: bytes, between: Path
) -> None:
    with client_of(load(unsure_bundle.path)) as client:
        sure, unsure = (client.post("/predict", content=each).json() for each in (red_png, between.read_bytes()))
        assert (sure["abstained"], sure["label"]) == (False, "red")
        assert (unsure["abstained"], unsure["label"]) == (True, "green")
        assert 0.5 < unsure["confidence"] == unsure["top"][0]["confidence"] < 0.9
        assert client.get("/model").json()["abstention"] == {
            "threshold": 0.9, "wanted": 0.95, "precision": 0.96, "coverage": 0.8, "answers": None,
        }  # fmt: skip
        assert "lensmith_abstained_total 1.0" in client.get("/metrics").text


def test_a_model_without_a_threshold_says_so_and_never_abstains(client: TestClient, between: Path) -> None:
    assert client.get("/model").json()["abstention"] is None
    assert client.post("/predict", content=between.read_bytes()).json()["abstained"] is False


def test_top_k_limits_the_classes_named(client: TestClient, red_png: bytes) -> None:
    assert len(client.post("/predict?top_k=2", content=red_png).json()["top"]) == 2
    assert len(client.post("/predict?top_k=99", content=red_png).json()["top"]) == 3


def test_a_sane_request_id_is_kept_and_a_strange_one_replaced(client: TestClient) -> None:
    assert client.get("/livez", headers={"x-request-id": "abc-1.2"}).headers["x-request-id"] == "abc-1.2"
    for strange in ("a b", "x" * 129, "<script>", ""):
        given = client.get("/livez", headers={"x-request-id": strange}).headers["x-request-id"]
        assert len(given) == 32
        assert given != strange


def picture(size: tuple[int, int], kind: str = "PNG") -> bytes:
    out = BytesIO()
    Image.new("L", size).save(out, kind)
    return out.getvalue()


BAD_REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such route": ("/nothing", {"content": b""}, "not-found"),
    "a slash too many": ("/predict/", {"content": b""}, "not-found"),
    "a GIF": ("/predict", {"content": picture((8, 8), "GIF")}, "not-jpeg-or-png"),
    "a GIF that claims to be a PNG": (
        "/predict",
        {"files": {"file": ("a.png", picture((8, 8), "GIF"), "image/png")}},
        "not-jpeg-or-png",
    ),
    "a cut PNG": ("/predict", {"content": picture((64, 64))[:50]}, "unusable-image"),
    "a JPEG in its first bytes only": ("/predict", {"content": b"\xff\xd8\xff\xe0 nothing more"}, "unusable-image"),
    "too many pixels": ("/predict", {"content": picture((101, 100))}, "unusable-image"),
    "too many bytes": ("/predict", {"content": b"\xff\xd8\xff" + bytes(20_000)}, "too-large"),
    "too many bytes in a form": ("/predict", {"files": {"file": b"\xff\xd8\xff" + bytes(20_000)}}, "too-large"),
    "an empty body": ("/predict", {"content": b""}, "no-image"),
    "an empty file": ("/predict", {"files": {"file": b""}}, "no-image"),
    "another field": ("/predict", {"files": {"image": picture((8, 8))}}, "no-image"),
    "a field that is no file": ("/predict", {"data": {"file": "text"}, "files": {"x": b"1"}}, "no-image"),
    "two files": ("/predict", {"files": [("file", b"1"), ("file", b"2")]}, "no-image"),
    "a form without boundary": (
        "/predict",
        {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}},
        "no-image",
    ),
    "a form that is none": (
        "/predict",
        {"content": b"no form at all", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        "no-image",
    ),
    "top_k of nothing": ("/predict?top_k=0", {"content": picture((8, 8))}, "invalid-request"),
    "top_k in words": ("/predict?top_k=all", {"content": picture((8, 8))}, "invalid-request"),
}


@pytest.fixture(scope="module")
def strict_client(client_of: ClientOf) -> Iterator[TestClient]:
    """A service with small limits."""
    with client_of(max_bytes=10_000, max_pixels=10_000) as client:
        yield client


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_every_bad_request_gets_its_problem(strict_client: TestClient, what: str) -> None:
    path, request, kind = BAD_REQUESTS[what]
    assert_problem(strict_client.post(path, **request), kind)


def test_an_upload_of_exactly_the_limit_passes_both_ways(strict_client: TestClient) -> None:
    exact = picture((50, 50)).ljust(10_000, b"\0")
    assert strict_client.post("/predict", content=exact).status_code == 200
    assert strict_client.post("/predict", files={"file": exact}).status_code == 200
    assert_problem(strict_client.post("/predict", content=exact + b"\0"), "too-large")
    assert_problem(strict_client.post("/predict", files={"file": exact + b"\0"}), "too-large")


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_over_the_limit_is_refused_without_reading_it_all(
    ready_app_of: AppOf, classifier: Classifier, settings: ServeSettings, announced: bool
) -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": bytes(1_000_000), "more_body": True}

    headers = [(b"content-length", b"1000000000")] if announced else []
    status, _ = asyncio.run(call(ready_app_of(settings, classifier), "/predict", receive, headers))
    assert status == 413
    assert read == (0 if announced else 6)  # of 1 MB each, with a limit of 5 MB


def test_a_method_that_is_not_offered_is_told_with_those_that_are(client: TestClient) -> None:
    response = client.get("/predict")
    assert_problem(response, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_a_fault_is_answered_without_a_word_of_it_and_logged_with_its_request(
    client: TestClient, red_png: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_model: LoadedModel, _batch: np.ndarray) -> None:
        raise RuntimeError("secret path /etc/keys")

    monkeypatch.setattr(LoadedModel, "infer", fail)
    response = client.post("/predict", content=red_png)
    assert_problem(response, "internal-error")
    assert "secret" not in response.text
    assert client.get("/livez").status_code == 200
    assert "secret path" in caplog.text
    assert response.json()["request_id"] in caplog.text


def test_before_it_is_warm_it_is_alive_but_not_ready(client_of: ClientOf) -> None:
    client = client_of()  # its lifespan never begins
    assert client.get("/livez").json() == {"status": "alive"}
    assert_problem(client.get("/readyz"), "not-ready")
    response = client.post("/predict", content=b"")
    assert_problem(response, "not-ready")
    assert response.headers["retry-after"] == "1"


def test_while_it_drains_it_is_not_ready_and_asks_clients_to_close_but_answers(
    client: Any, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    assert "connection" not in client.get("/readyz").headers
    monkeypatch.setattr(client.app.state.service, "phase", "draining")
    assert_problem(client.get("/readyz"), "draining")
    assert client.get("/livez").status_code == 200
    response = client.post("/predict", content=red_png)
    assert response.status_code == 200
    assert response.headers["connection"] == "close"


async def test_what_waits_is_bounded_and_health_does_not_wait(
    ready_app_of: AppOf, colour_bundle: Bundle, settings: ServeSettings, red_png: bytes
) -> None:
    blocking = BlockingEngine()
    # Three images of 5 s each fit into the deadline, a fourth does not.
    strict = settings.model_copy(update={"deadline_ms": 18_000.0})
    app = ready_app_of(strict, Classifier(colour_bundle, FakeEngine(blocking)), 5.0)
    workers = app.state.service.admission.pool
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        held = [asyncio.create_task(client.post("/predict", content=red_png)) for _ in range(3)]
        await until(lambda: (workers.running, workers.waiting) == (1, 2))
        refused = await client.post("/predict", content=red_png)
        assert_problem(refused, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/readyz")).status_code == 200
        blocking.release()
        assert [(await each).status_code for each in held] == [200, 200, 200]
        assert 'lensmith_shed_total{reason="overloaded"} 1.0' in (await client.get("/metrics")).text


async def test_a_client_that_leaves_the_queue_frees_its_place_and_its_image_is_never_run(
    ready_app_of: AppOf, colour_bundle: Bundle, settings: ServeSettings, red_png: bytes
) -> None:
    blocking = BlockingEngine()
    app = ready_app_of(settings, Classifier(colour_bundle, FakeEngine(blocking)), 0.05)
    workers = app.state.service.admission.pool
    leave = asyncio.Event()

    async def stay() -> dict[str, Any]:
        return messages.pop() if (messages := staying) else await asyncio.Future()

    async def go() -> dict[str, Any]:
        if going:
            return going.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    staying = [{"type": "http.request", "body": red_png}]
    going = [{"type": "http.request", "body": red_png}]
    first = asyncio.create_task(call(app, "/predict", stay))
    await until(lambda: workers.running == 1)
    second = asyncio.create_task(call(app, "/predict", go))
    await until(lambda: workers.waiting == 1)
    leave.set()
    assert await second == (None, b"")
    assert workers.waiting == 0
    blocking.release()
    assert (await first)[0] == 200
    assert b'status="499"' in app.state.service.telemetry.exposition()
    assert blocking.sizes == [1]


def test_the_page_needs_nothing_from_elsewhere_and_may_run_no_inline_script(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in page.text
    assert "//" not in page.text.replace("http://www.w3.org", "")
    for name in ("base.css", "console.css", "console.js", "icon.svg"):
        assert f"console/{name}" in page.text
        assert client.get(f"/console/{name}").status_code == 200


def test_the_model_route_says_what_is_served_and_what_may_be_sent(client: TestClient) -> None:
    model = client.get("/model").json()
    assert (model["name"], model["version"], model["labels"]) == ("colours", "1", ["blue", "green", "red"])
    assert (model["engine"], model["precision"], model["image_size"]) == ("onnxruntime", "fp32", 32)
    assert (model["max_bytes"], model["max_pixels"]) == (5_000_000, 50_000_000)
    assert model["value_ranges"] == {"uint16": [0.0, 65535.0]}


def test_openapi_documents_both_bodies_the_answer_and_the_envelope(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation, schemas = document["paths"]["/predict"]["post"], document["components"]["schemas"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/jpeg", "image/png"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/PredictResponse")
    assert "abstained" in schemas["PredictResponse"]["required"]
    assert "guess" in schemas["PredictResponse"]["properties"]["abstained"]["description"]
    assert "threshold" in schemas["Abstention"]["properties"]
    for status in ("413", "415", "422", "500", "503"):
        envelope = operation["responses"][status]["content"]
        assert set(envelope) == {"application/problem+json"}
        fields = envelope["application/problem+json"]["schema"]["properties"]
        assert set(fields) == {"type", "title", "status", "detail", "request_id"}


def test_every_kind_of_problem_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    for kind, (status, title) in KINDS.items():
        assert f"| {status} | `{kind}` | {title} |" in page


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/"])
def test_probes_that_ask_for_the_head_alone_get_it(client: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "cache-control"):
        assert head.headers[name] == whole.headers[name]
    assert "head" not in client.get("/openapi.json").json()["paths"].get(path, {})
    monkeypatch.setattr(client.app.state.service, "phase", "draining")
    assert client.head(path).status_code == client.get(path).status_code


def test_the_document_is_made_before_anybody_asks(new_client: Any) -> None:
    end = time.monotonic() + 10
    while new_client.app.openapi_schema is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_query_that_is_wrong_costs_no_quota(client_of: ClientOf, red_png: bytes) -> None:
    with client_of(quota="2/minute") as client:
        for query in ("top_k=0", "top_k=x", "model=nobody"):
            assert client.post(f"/predict?{query}", content=red_png).status_code in (404, 422)
            assert client.post(f"/predict/batch?{query}", files={"file": red_png}).status_code in (404, 422)
        statuses = [client.post("/predict", content=red_png).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_an_image_of_several_that_came_too_late_is_no_request_that_was_shed(
    ready_app_of: AppOf, classifier: Classifier, settings: ServeSettings, red_png: bytes, caplog: Any
) -> None:
    app = ready_app_of(settings.model_copy(update={"log_requests": True}), classifier)

    async def too_late(request: Request, _images: Any, _top_k: int, model: LoadedModel) -> list[ProblemError]:
        request.scope["state"]["model"] = model
        return [ProblemError("expired", "Too late.")]

    app.state.service.predictor.predict_many = too_late
    client = TestClient(app)
    with caplog.at_level("INFO"):
        answer = client.post("/predict/batch", files={"file": red_png})
    assert (answer.status_code, answer.json()["results"][0]["problem"]["status"]) == (200, 504)
    assert 'lensmith_shed_total{reason="expired"} 0.0' in client.get("/metrics").text
    (line,) = [each for each in caplog.records if each.getMessage() == "POST /predict/batch 200"]
    assert line.problem is None  # type: ignore[attr-defined]


async def call(app: Any, path: str, receive: Any, headers: Any = ()) -> tuple[int | None, bytes]:
    """One POST over bare ASGI: the status (None if nothing was sent) and the body."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": list(headers),
        "client": ("test", 1), "server": ("test", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    return (sent[0]["status"] if sent else None), b"".join(message.get("body", b"") for message in sent)


async def until(condition: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("prefix", "servers"),
    [("/cats", ["/cats"]), ("/a/b-1/", ["/a/b-1"]), ("", []), ("//evil.example", []), ("https://evil.example", []),
     ("/a//b", []), ("/a?b", []), ("/", []), ("/a, /b", ["/a/b"]), ("/a/,/b/", ["/a/b"]), ("/a, //b", []),
     ("/a%20b/@c", ["/a%20b/@c"]), ("/a%2", [])],
)  # fmt: skip
def test_the_openapi_document_names_the_path_below_which_a_proxy_publishes_the_service(
    prefix: str, servers: list[str], client: TestClient
) -> None:
    response = client.get("/openapi.json", headers={"x-forwarded-prefix": prefix})
    assert [each["url"] for each in response.json().get("servers", [])] == servers
    assert "servers" not in client.get("/openapi.json").json()
