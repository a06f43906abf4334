"""Another model takes the place of the active one, and two stand side by side."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fixtures.tokens import SECRET, token
from lensmith.bundle.format import Bundle
from lensmith.config import ServeSettings
from lensmith.serving.execution.loaded_model import LoadedModel, ModelVersion
from lensmith.serving.service import Service

pytestmark = pytest.mark.anyio

TOKEN = {"authorization": "Bearer " + token(scope="predict admin")}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> Iterator[TestClient]:
    with client_of() as client:
        client.headers.update(TOKEN)
        yield client


def test_a_swapped_model_answers_and_the_metrics_say_so(
    client: TestClient, remake: Callable[..., Bundle], red_png: bytes
) -> None:
    newer = remake("newer", version="2")
    swapped = client.post("/admin/model", json={"bundle": str(newer.path)})
    assert (swapped.status_code, swapped.json()) == (200, {"name": "colours", "version": "2"})
    assert client.post("/predict", content=red_png).json()["model"]["version"] == "2"
    assert client.get("/model").json()["version"] == "2"
    metrics = client.get("/metrics").text
    assert 'lensmith_model_info{engine="onnxruntime",name="colours",precision="fp32",version="2"} 1.0' in metrics
    assert 'lensmith_model_info{engine="onnxruntime",name="colours",precision="fp32",version="1"} 0.0' in metrics
    assert 'lensmith_requests_total{route="/predict",status="200",version="2"} 1.0' in metrics


def test_without_a_path_the_bundle_is_read_again_from_where_it_was(
    client_of: Callable[..., TestClient], remake: Callable[..., Bundle]
) -> None:
    bundle = remake("served").path
    with client_of(bundle=bundle) as client:
        shutil.rmtree(bundle)
        remake("served", version="3")
        assert client.post("/admin/model", json={}, headers=TOKEN).json()["version"] == "3"


def test_formats_that_only_the_new_model_was_trained_on_are_in_the_log(
    client: TestClient, remake: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "lensmith")
    other = remake("other", version="2", formats={"jpeg": 3, "webp": 5})
    assert client.post("/admin/model", json={"bundle": str(other.path)}).status_code == 200
    assert "colours@2: The model was trained on JPEG, WebP; the service takes JPEG, PNG." in caplog.text


@pytest.mark.parametrize("broken", ["missing", "damaged"])
def test_a_bundle_that_cannot_be_served_leaves_the_active_model_where_it_is(
    client: TestClient, remake: Callable[..., Bundle], red_png: bytes, broken: str
) -> None:
    bundle = remake("broken", version="2").path
    if broken == "damaged":
        with (bundle / "model.onnx").open("ab") as graph:
            graph.write(b"x")
    else:
        shutil.rmtree(bundle)
    refused = client.post("/admin/model", json={"bundle": str(bundle)})
    assert (refused.status_code, refused.json()["title"]) == (422, "The bundle cannot be served")
    assert client.post("/predict", content=red_png).json()["model"]["version"] == "1"


async def test_two_swaps_at_once_are_one_too_many_and_requests_are_answered_meanwhile(
    app_of: Callable[..., FastAPI], settings: ServeSettings, red_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release = threading.Event(), threading.Event()
    load = LoadedModel.load

    def slow(*args: Any, low_priority: bool = False, named: ModelVersion | None = None) -> LoadedModel:
        if low_priority:  # not the first one
            began.set()
            release.wait(10)
        return load(*args, named=named)

    monkeypatch.setattr(LoadedModel, "load", slow)
    app = app_of(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test", headers=TOKEN) as client,
    ):
        first = asyncio.create_task(client.post("/admin/model", json={}))
        await asyncio.to_thread(began.wait, 10)
        second = await client.post("/admin/model", json={})
        assert (second.status_code, second.headers["retry-after"]) == (409, "1")
        assert (await client.post("/predict", content=red_png)).status_code == 200
        release.set()
        assert (await first).status_code == 200


def test_a_second_model_answers_where_a_request_names_it(
    client_of: Callable[..., TestClient], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    with client_of(beside=remake("other", name="shades", version="7").path) as client:
        client.headers.update(TOKEN)
        assert client.get("/model").json()["loaded"] == [
            {"name": "colours", "version": "1"}, {"name": "shades", "version": "7"},
        ]  # fmt: skip
        for query, name in (("", "colours"), ("?model=shades", "shades"), ("?model=colours@1", "colours")):
            assert client.post(f"/predict{query}", content=red_png).json()["model"]["name"] == name
        assert client.post("/predict/batch?model=shades@7", files={"file": red_png}).json()["model"]["version"] == "7"
        for query in ("?model=shades@1", "?model=nobody", "?model=@7", "?model="):
            refused = client.post(f"/predict{query}", content=red_png)
            assert (refused.status_code, refused.json()["title"]) == (404, "There is no such model here")
            assert "colours@1, shades@7" in refused.json()["detail"]


@pytest.mark.slow
def test_a_model_that_was_swapped_leaves_memory(client: TestClient, red_png: bytes) -> None:
    models = client.app.state.service.models  # type: ignore[attr-defined]
    first = weakref.ref(models.active)
    for _ in range(4):
        assert client.post("/predict", content=red_png).status_code == 200
    assert client.post("/admin/model", json={}).status_code == 200
    gc.collect()
    assert first() is None


def test_a_stated_deadline_stays_and_the_default_follows_the_model(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    service.admission.set_image_time(10.0)
    assert service.admission.deadline_s == 20.0  # as the fixture states
    unstated = Service(service.models, ServeSettings(bundle="x"))
    unstated.admission.set_image_time(10.0)
    assert unstated.admission.deadline_s == 30.0
    assert client.post("/admin/model", json={}).status_code == 200
    assert service.admission.deadline_s == 20.0


def test_an_admin_act_leaves_a_line_in_the_audit(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lensmith.audit"):
        response = client.post("/admin/model", json={}, headers={"x-request-id": "swap-1"})
    assert response.status_code == 200
    (line,) = [record.getMessage() for record in caplog.records if record.name == "lensmith.audit"]
    assert '"request_id": "swap-1"' in line
    assert "colours@1" in line
