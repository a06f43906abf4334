"""What a managed platform's environment decides, and what it may not."""

import pytest

from lensmith.config import ServeSettings
from lensmith.errors import SettingsError
from lensmith.serving import platform
from lensmith.serving.platform import VertexRoutes


def test_a_platforms_port_is_taken_and_nothing_else() -> None:
    assert platform.settings({}) == {}
    assert platform.settings({"SAGEMAKER_BIND_TO_PORT": "8081"}) == {"port": "8081"}
    assert platform.settings({"AIP_HTTP_PORT": "8082", "AIP_STORAGE_URI": "gs://x", "PORT": "1"}) == {"port": "8082"}


def test_a_platforms_port_that_is_empty_is_no_other_port() -> None:
    with pytest.raises(SettingsError, match="port is empty"):
        ServeSettings.resolve({"bundle": "b", **platform.settings({"AIP_HTTP_PORT": ""})})


def test_without_a_platform_there_are_no_routes_of_one() -> None:
    assert platform.vertex_routes({"AIP_HTTP_PORT": "8080"}) is None


def test_vertex_ais_own_addresses_are_taken_as_they_are() -> None:
    given = "/v1/endpoints/12/deployedModels/34"
    routes = platform.vertex_routes({"AIP_HEALTH_ROUTE": given, "AIP_PREDICT_ROUTE": f"{given}:predict"})
    assert routes == VertexRoutes(given, f"{given}:predict")


@pytest.mark.parametrize(
    ("health", "predict"),
    [
        ("", ""), ("", "/predict"),
        ("/health", ""), ("health", "/predict"), ("/health", "/health"), ("/health", "/{name}"),
        ("/health", "/livez"), ("/health", "/metrics"), ("/health", "/"), ("/health", "/console/predict"),
        ("/admin/health", "/predict"), ("/health", "/admin"), ("/health", "/v2/models/x/infer"), ("/a b", "/predict"),
    ],
)  # fmt: skip
def test_addresses_that_would_open_or_hide_something_are_refused(health: str, predict: str) -> None:
    with pytest.raises(SettingsError, match="AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE"):
        platform.vertex_routes({"AIP_HEALTH_ROUTE": health, "AIP_PREDICT_ROUTE": predict})
