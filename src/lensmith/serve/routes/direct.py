"""A route that costs next to nothing: documented as any other, and called with the request alone."""

from __future__ import annotations

from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send


class Direct(APIRoute):
    """Its function takes a `Request` and returns a `Response`.

    FastAPI resolves parameters and dependencies for every request, which took half of the time of a request without
    its image. What such a function reads from the request stands in `openapi_extra`.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app
