"""What managed platforms tell a container through its environment: the port it is asked on, and Vertex AI's routes.

This is the one place where such variables are read. Where a platform names a port, it asks there and nowhere else, so
its word comes before LENSMITH_SERVE_PORT and lensmith.yaml; a flag on the line comes before both. Which address is
bound is never taken from a platform: it decides whether tokens are needed, so it has to be said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lensmith.errors import SettingsError
from lensmith.serving.auth.middleware import HEALTH, OPEN

PORTS = ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT")
"""Vertex AI's, then SageMaker's."""
HEALTH_ROUTE = "AIP_HEALTH_ROUTE"
PREDICT_ROUTE = "AIP_PREDICT_ROUTE"

_ROUTE = re.compile(r"/[A-Za-z0-9._~:@/-]*")
_TAKEN = re.compile(r"/(admin|console|v2)(/.*)?")
"""Whose rules on who may ask would not fit."""


@dataclass(frozen=True, slots=True)
class VertexRoutes:
    """Where Vertex AI asks.

    Attributes:
        health: by GET.
        predict: by POST.
    """

    health: str
    predict: str


def settings(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Settings of `lensmith serve` that a platform decides; empty where there is none."""
    port = next((environment[name] for name in PORTS if environment.get(name)), None)
    return {} if port is None else {"port": port}


def vertex_routes(environment: Mapping[str, str] = os.environ) -> VertexRoutes | None:
    """Where Vertex AI asks; None where this is not Vertex AI.

    Raises:
        SettingsError: only one of the two is named, or one cannot be had.
    """
    routes = {name: environment.get(name, "") for name in (HEALTH_ROUTE, PREDICT_ROUTE)}
    if not any(routes.values()):
        return None
    usable = all(_ROUTE.fullmatch(each) and not _TAKEN.fullmatch(each) for each in routes.values())
    # What is asked for health needs no token, and so must not classify.
    if not usable or routes[PREDICT_ROUTE] in {routes[HEALTH_ROUTE], *HEALTH, *OPEN}:
        raise SettingsError(
            f"Two addresses were expected in {HEALTH_ROUTE} and {PREDICT_ROUTE}, as /health and /predict: none below "
            "/admin, /console and /v2, and none to classify that is asked for health or the page.",
            f"These arrived: {', '.join(map(repr, routes.values()))}.",
            "Name others when the model is uploaded.",
        )
    return VertexRoutes(*routes.values())
