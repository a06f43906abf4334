"""The fast path: routes that are documented like any other, and called with nothing but the request.

The work of FastAPI and Starlette for each request (parameters and dependencies, exit stacks, exception handlers,
matching every route in turn) took more time than everything else that a request costs beside its image.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lensmith.serving.problems import ProblemDetails, ProblemError, documented

PREDICT_FAILURES = (401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
"""Statuses of the problems with which predictions may fail."""


class FastRoute(APIRoute):
    """A route whose function takes a `Request` and returns a `Response`, or raises a `ProblemError`."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app


class FastPathMiddleware:
    """Calls the fast route of a request without routing; the innermost middleware.

    Args:
        app: the application, for all other requests.
        routes: returns the fast routes by method and path.
    """

    def __init__(self, app: ASGIApp, routes: Callable[[], Mapping[tuple[str, str], FastRoute]]) -> None:
        self.app = app
        self._routes = routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            return await self.app(scope, receive, send)
        scope["route"] = route
        try:
            response = await route.endpoint(Request(scope, receive, send))
        except ProblemError as problem:
            response = problem.response(scope)
        return await response(scope, receive, send)  # type: ignore[no-any-return]


def add_fast_route(
    app: FastAPI,
    path: str,
    handler: Callable[[Request], Awaitable[Response]],
    answer: Any,
    failures: Iterable[int],
    *,
    method: str = "POST",
    name: str | None = None,
    details: type[ProblemDetails] = ProblemDetails,
    **reads: Any,
) -> None:
    """Add a fast route to `app`.

    Args:
        app: the application.
        path: path of the route.
        handler: coroutine function that answers.
        answer: pydantic model of the response.
        failures: statuses of its problems.
        method: HTTP method.
        name: name in the OpenAPI document; None: the handler's.
        details: envelope of its problems.
        reads: `parameters` and `requestBody` of the OpenAPI document: what the handler reads from the request.
    """
    app.router.add_api_route(
        path,
        handler,
        methods=[method],
        name=name,
        response_model=answer,
        responses=documented(*failures, details=details),
        openapi_extra=reads,
        route_class_override=FastRoute,
    )


def fast_routes(app: FastAPI) -> dict[tuple[str, str], FastRoute]:
    """The fast routes of `app` by method and path, but for those with parameters in their path."""
    found = [route for route in app.routes if isinstance(route, FastRoute) and not route.param_convertors]
    return {(method, route.path): route for route in found for method in route.methods or ()}


def json_response(content: BaseModel) -> Response:
    """A JSON response, for functions of fast routes."""
    return Response(content.model_dump_json(), media_type="application/json")
