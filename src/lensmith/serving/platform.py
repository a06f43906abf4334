"""Environment variables of managed platforms (Vertex AI, SageMaker): the port to listen on, and Vertex AI's routes.

This is the one place where such variables are read. A platform sends requests to the port that it names and to no
other, so its variable takes precedence over LENSMITH_SERVE_PORT and lensmith.yaml; a command-line flag takes precedence
over both. The address to bind is never taken from a platform: it decides whether tokens are needed, so it must be set.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lensmith.errors import SettingsError
from lensmith.serving.auth.middleware import HEALTH, OPEN

PORTS = ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT")
"""Variables that name the port: Vertex AI's, then SageMaker's."""
HEALTH_ROUTE = "AIP_HEALTH_ROUTE"
PREDICT_ROUTE = "AIP_PREDICT_ROUTE"

_ROUTE = re.compile(r"/[A-Za-z0-9._~:@/-]*")
_TAKEN = re.compile(r"/(admin|console|v2)(/.*)?")
"""Paths whose rules on tokens would not fit."""


class VertexRoutes(NamedTuple):
    """The paths that Vertex AI requests: `health` for its probe (GET), `predict` for predictions (POST)."""

    health: str
    predict: str


def settings(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Settings of `lensmith serve` that a platform sets; empty where there is none."""
    port = next((environment[name] for name in PORTS if name in environment), None)
    return {} if port is None else {"port": port}


def vertex_routes(environment: Mapping[str, str] = os.environ) -> VertexRoutes | None:
    """The paths that Vertex AI requests; None on another platform.

    Raises:
        SettingsError: only one of the two is set, or one is empty or cannot be used.
    """
    if HEALTH_ROUTE not in environment and PREDICT_ROUTE not in environment:
        return None
    routes = {name: environment.get(name, "") for name in (HEALTH_ROUTE, PREDICT_ROUTE)}
    usable = all(_ROUTE.fullmatch(each) and not _TAKEN.fullmatch(each) for each in routes.values())
    # The health probe needs no token, so its path must not classify.
    if not usable or routes[PREDICT_ROUTE] in {routes[HEALTH_ROUTE], *HEALTH, *OPEN}:
        raise SettingsError(
            f"Two addresses were expected in {HEALTH_ROUTE} and {PREDICT_ROUTE}, as /health and /predict: none below "
            "/admin, /console and /v2, and the one to classify must not be that of health probes or the page.",
            f"These arrived: {', '.join(map(repr, routes.values()))}.",
            "Name others when the model is uploaded.",
        )
    return VertexRoutes(*routes.values())
