"""Health probes and metrics: `/livez`, `/readyz` and `/metrics`. None of them waits for the pool."""

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from lensmith.serving.problems import documented
from lensmith.serving.routes.fast_path import add_fast_route, json_response
from lensmith.serving.schema import Readiness, Status
from lensmith.serving.service import Service


def add_health(app: FastAPI, service: Service) -> None:
    """Add the routes to `app`."""

    async def livez() -> Status:
        """Whether the process answers at all; restart it if not."""
        return Status(status="alive")

    async def readyz() -> Readiness:
        """Whether to send requests here: the model is loaded, verified and warm, and the service is not stopping."""
        service.require_ready()
        if service.rollout is not None and service.rollout.problem:
            # Anybody may ask, so the reason, which names addresses, is left to /rollout and the log.
            return Readiness(status="ready", detail="The registry is not followed; GET /rollout and the log say why.")
        return Readiness(status="ready")

    async def metrics() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(service.telemetry.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    app.add_api_route("/livez", livez)
    app.add_api_route("/readyz", readyz, responses=documented(503), response_model_exclude_none=True)
    app.add_api_route(
        "/metrics",
        metrics,
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )


def add_readiness_probe(app: FastAPI, service: Service, path: str, name: str) -> None:
    """Add a platform's own readiness probe to `app`, like /readyz; `name` stands in the OpenAPI document."""

    async def probe(_request: Request) -> Response:
        """Whether to send requests here."""
        service.require_ready()
        return json_response(Status(status="ready"))

    add_fast_route(app, path, probe, Status, [503], method="GET", name=name)
