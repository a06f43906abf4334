"""Memory and GPUs."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lensmith.serving.metrics import usage


class NVMLError(Exception):
    """As NVIDIA's library raises it."""


def nvml(count: int, **instead: Callable[..., Any]) -> SimpleNamespace:
    """NVIDIA's library, with so many GPUs."""
    functions: dict[str, Any] = {
        "nvmlDeviceGetCount": lambda: count,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=70 + handle),
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=5e9, total=8e9),
    }
    return SimpleNamespace(NVMLError=NVMLError, **functions | instead)


def test_memory_is_that_of_the_processes_that_live() -> None:
    own = usage.memory_bytes([os.getpid()])
    assert own > 1e7
    assert usage.memory_bytes([os.getpid(), 2**22 + 1]) == pytest.approx(own, rel=0.2)


def test_gpus_are_measured_where_there_are_any(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_nvml", lambda: nvml(2))
    assert list(usage.gpus()[1].values()) == [0.71, 5_000_000_000, 8_000_000_000]
    page = client.get("/metrics").text
    assert 'lensmith_gpu_utilisation_ratio{gpu="0"} 0.7' in page
    assert 'lensmith_gpu_memory_limit_bytes{gpu="1"} 8e+09' in page


def test_without_a_gpu_nothing_is_said_of_one(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_nvml", lambda: None)
    assert "lensmith_gpu" not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("failing", "said", "unsaid"),
    [
        ("nvmlDeviceGetUtilizationRates", ["memory_bytes", "memory_limit_bytes"], ["utilisation"]),
        ("nvmlDeviceGetMemoryInfo", ["utilisation_ratio"], ["memory"]),
        ("nvmlDeviceGetHandleByIndex", [], ["utilisation", "memory"]),
        ("nvmlDeviceGetCount", [], ["utilisation", "memory"]),
    ],
)
def test_what_a_gpu_does_not_tell_is_left_out(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, failing: str, said: list[str], unsaid: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise NVMLError("Not Supported")

    monkeypatch.setattr(usage, "_nvml", lambda: nvml(1, **{failing: fail}))
    page = client.get("/metrics")
    assert page.status_code == 200
    assert all(f'lensmith_gpu_{name}{{gpu="0"}}' in page.text for name in said)
    assert not any(f"lensmith_gpu_{name}" in page.text for name in unsaid)
