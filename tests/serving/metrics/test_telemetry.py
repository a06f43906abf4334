"""What Prometheus reads."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from lensmith.bundle.format import Bundle
from lensmith.serving.metrics import usage
from lensmith.serving.metrics.telemetry import REQUEST_BUCKETS, Telemetry


def samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels) → value, as Prometheus's own parser reads the page."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def test_requests_are_counted_by_route_template_status_and_version(new_client: TestClient, red_png: bytes) -> None:
    for _ in range(3):
        new_client.post("/predict?top_k=1", content=red_png)
    new_client.post("/predict", content=b"nothing")
    found = samples(new_client)
    assert found["lensmith_requests_total", labels(route="/predict", status="200", version="1")] == 3
    assert found["lensmith_requests_total", labels(route="/predict", status="415", version="1")] == 1
    assert found["lensmith_request_seconds_count", labels(route="/predict")] == 3  # those that succeeded
    assert found["lensmith_decode_seconds_count", labels()] == 3
    assert found["lensmith_inference_seconds_count", labels()] == 3


def test_addresses_that_do_not_exist_share_one_series(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/made-up/{number}")
        client.get(f"/console/{number}.js")
    routes = {dict(each)["route"] for name, each in samples(client) if name == "lensmith_requests_total"}
    assert len(routes) <= 3
    assert "unmatched" in routes


def test_the_model_the_load_and_the_process_are_described(client: TestClient) -> None:
    found = samples(client)
    info = labels(name="colours", version="1", engine="onnxruntime", precision="fp32")
    assert found["lensmith_model_info", info] == 1
    assert found["lensmith_images_running", labels()] == 0
    assert found["lensmith_images_queued", labels()] == 0
    assert found["lensmith_shed_total", labels(reason="overloaded")] == 0
    assert found["lensmith_abstained_total", labels()] == 0
    assert found["lensmith_requests_in_flight", labels()] == 1  # the scrape itself
    assert found["process_resident_memory_bytes", labels()] > 1e6
    assert found["lensmith_memory_limit_bytes", labels()] > found["lensmith_memory_bytes", labels()] > 1e7


@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_the_latency_that_is_judged_by_lies_on_a_bucket_with_close_neighbours(seconds: float) -> None:
    index = REQUEST_BUCKETS.index(seconds)
    assert REQUEST_BUCKETS[index + 1] / seconds <= 1.25
    assert seconds / REQUEST_BUCKETS[index - 1] <= 1.4


def test_two_services_in_one_process_count_for_themselves(
    client: TestClient, new_client: TestClient, red_png: bytes
) -> None:
    client.post("/predict", content=red_png)
    assert ("lensmith_requests_total", labels(route="/predict", status="200", version="1")) not in samples(new_client)


def test_a_request_counts_under_the_version_that_answered_it_else_under_the_active_one(
    client_of: Callable[..., TestClient], remake: Callable[..., Bundle], red_png: bytes
) -> None:
    with client_of(beside=remake("other", name="shades", version="7").path) as client:
        for _ in range(2):
            client.post("/predict?model=shades", content=red_png)
        client.post("/predict/batch?model=shades", files={"file": red_png})
        client.post("/predict?model=nobody", content=red_png)
        found = samples(client)
    assert found["lensmith_requests_total", labels(route="/predict", status="200", version="7")] == 2
    assert found["lensmith_requests_total", labels(route="/predict/batch", status="200", version="7")] == 1
    assert found["lensmith_requests_total", labels(route="/predict", status="404", version="1")] == 1


def test_memory_is_that_of_the_processes_and_of_the_one_that_watches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in (os.getpid(), 2**22 + 1):
        (tmp_path / f"gauge_livesum_{pid}.db").touch()
    monkeypatch.setattr(usage, "parent_process", lambda: SimpleNamespace(pid=os.getppid()))
    assert usage.pids_of_service(tmp_path) == {os.getpid(), os.getppid()}
    monkeypatch.setattr(usage, "parent_process", lambda: None)
    assert usage.pids_of_service(tmp_path) == {os.getpid()}


def test_a_store_of_quotas_that_answers_is_so_from_the_start() -> None:
    load = SimpleNamespace(running=0, waiting=0, threads=0)
    telemetry = Telemetry(SimpleNamespace(all=()), lambda: load, lambda: True, lambda: True)  # type: ignore[arg-type]
    assert telemetry.registry.get_sample_value("lensmith_quota_store_up") == 1
