"""Tokens, scopes and quotas, through the whole application."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fixtures.tokens import SECRET, token
from lensmith.config import ServeSettings
from lensmith.serving.problems import TYPE_PREFIX

ClientOf = Callable[..., TestClient]


def bearer(scope: str, subject: str = "somebody") -> dict[str, str]:
    return {"authorization": "Bearer " + token(scope=scope, sub=subject)}


def kind_of(response: Any) -> str:
    return response.json()["type"].removeprefix(TYPE_PREFIX)


@pytest.fixture(scope="module")
def guarded(client_of: ClientOf) -> Iterator[TestClient]:
    """A service that asks for tokens, and lets each caller send five images."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LENSMITH_JWT_SECRET", SECRET)
        client = client_of(quota="5/minute")
    with client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict"), ("POST", "/predict/batch"), ("GET", "/model"), ("POST", "/admin/model"),
        ("GET", "/nothing"), ("GET", "/console"), ("GET", "/livez/"), ("DELETE", "/predict"),
    ],
)  # fmt: skip
def test_without_a_token_nothing_is_said_of_any_address_but_the_open_ones(
    guarded: TestClient, method: str, path: str
) -> None:
    response = guarded.request(method, path)
    assert (response.status_code, kind_of(response)) == (401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_an_admin_act_that_is_refused_leaves_a_line_in_the_audit(
    guarded: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "lensmith.audit"):
        guarded.post("/admin/model", json={})
        guarded.post("/admin/model", json={}, headers=bearer("predict", subject="eve"))
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "lensmith.audit"]
    assert [(line["action"], line["subject"], line["outcome"]) for line in lines] == [
        ("POST /admin/model", None, "refused"), ("POST /admin/model", "eve", "refused"),
    ]  # fmt: skip
    assert {line["details"]["client"] for line in lines} == {"127.0.0.1"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/", "/openapi.json", "/console/console.css"])
def test_health_metrics_and_the_page_need_no_token(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_each_scope_allows_its_own_and_no_more(guarded: TestClient, red_png: bytes) -> None:
    assert guarded.post("/predict", content=red_png, headers=bearer("predict")).status_code == 200
    assert guarded.post("/admin/model", json={}, headers=bearer("admin")).status_code == 200
    for path, scope in (("/predict", "admin"), ("/admin/model", "predict"), ("/predict", "other")):
        response = guarded.post(path, headers=bearer(scope))
        assert (response.status_code, kind_of(response)) == (403, "forbidden")


def test_a_body_is_not_read_before_its_token_is_checked(guarded: TestClient) -> None:
    response = guarded.post("/predict", content=bytes(6_000_000))
    assert response.status_code == 401  # and not 413


def test_each_caller_has_a_quota_of_images_and_a_batch_counts_each(guarded: TestClient, red_png: bytes) -> None:
    def send(subject: str) -> Any:
        return guarded.post("/predict", content=red_png, headers=bearer("predict", subject=subject))

    three = [("file", red_png)] * 3
    answered = guarded.post("/predict/batch", files=three, headers=bearer("predict", subject="one"))
    assert (answered.status_code, len(answered.json()["results"])) == (200, 3)
    assert [send("one").status_code for _ in range(3)] == [200, 200, 429]
    refused = send("one")
    assert kind_of(refused) == "over-quota"
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert send("other").status_code == 200
    assert "lensmith_over_quota_total 2.0" in guarded.get("/metrics").text


def test_without_authentication_a_quota_that_is_set_counts_by_address(client_of: ClientOf, red_png: bytes) -> None:
    with client_of(quota="2/minute") as client:
        assert [client.post("/predict", content=red_png).status_code for _ in range(3)] == [200, 200, 429]


def test_without_authentication_nobody_may_change_the_model(client: TestClient) -> None:
    # A request through a proxy on this machine looks like one from this machine.
    refused = client.post("http://127.0.0.1:8000/admin/model", json={})
    assert (refused.status_code, kind_of(refused)) == (403, "forbidden")
    assert "--jwt-secret-file" in refused.json()["detail"]


def test_health_on_a_port_of_its_own_is_on_no_other(app_of: Callable[..., FastAPI], settings: ServeSettings) -> None:
    app = app_of(settings)
    app.state.service.health_port = 9000
    on_health, elsewhere = (TestClient(app, base_url=f"http://127.0.0.1:{port}") for port in (9000, 8000))
    assert [on_health.get(path).status_code for path in ("/livez", "/metrics", "/model", "/")] == [200, 200, 404, 404]
    assert [elsewhere.get(path).status_code for path in ("/livez", "/metrics", "/model")] == [404, 404, 200]
