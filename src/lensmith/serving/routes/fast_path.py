"""Routes that cost next to nothing: documented as any other, and called with the request alone.

What FastAPI and Starlette do for each request (parameters and dependencies, exit stacks, exception handlers, matching
every route in turn) took more time than all else that a request costs beside its image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from lensmith.serving.problems import ProblemError


class FastRoute(APIRoute):
    """Its function takes a `Request` and returns a `Response`, or raises a `ProblemError`.

    What such a function reads from the request stands in `openapi_extra`.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app


class FastPathMiddleware:
    """Leads a request to its direct route, past routing. The innermost of what happens around requests.

    Args:
        app: for all other requests.
        routes: by method and address.
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


def fast_routes(app: FastAPI) -> dict[tuple[str, str], FastRoute]:
    """Those of `app` whose address is one alone."""
    found = [route for route in app.routes if isinstance(route, FastRoute) and not route.param_convertors]
    return {(method, route.path): route for route in found for method in route.methods or ()}
