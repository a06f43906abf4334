"""Auth middleware: every path needs a token with the right scope (`predict`, `admin`), except those named here."""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from lensmith.serving.auth import audit
from lensmith.serving.auth.jwt import Authenticator
from lensmith.serving.problems import ProblemError

HEALTH = frozenset({"/livez", "/readyz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"})
"""Paths that orchestrators and Prometheus ask without a token; they can be put on a port of their own."""
OPEN = frozenset({"/", "/openapi.json"})
OPEN_BELOW = "/console/"
"""Prefix of the page's files; the page asks its user for a token."""
ADMIN_BELOW = "/admin/"


class AuthMiddleware:
    """Passes on a request if its token grants the scope that the path needs, with the `Caller` in its state.

    Without authentication everybody may ask for predictions, and nobody may use admin routes: a request from this
    machine cannot be distinguished from one through a proxy on it, or from a page in its browser.

    Args:
        app: the application that is protected.
        authenticator: the check of tokens; None: no authentication.
        health_port: returns the port for health and metrics alone; None: they are on the port of the other routes.
        health: paths that count as health besides `HEALTH`.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator | None,
        health_port: Callable[[], int | None],
        health: frozenset[str] = frozenset(),
    ) -> None:
        self.app = app
        self._authenticator = authenticator
        self._health_port = health_port
        self._health = HEALTH | health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, then pass it on or answer with the problem."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            await self._check(scope)
        except ProblemError as problem:
            return await problem.response(scope)(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        path: str = scope["path"]
        health_port = self._health_port()
        if health_port is not None and (path in self._health) != (scope["server"][1] == health_port):
            raise ProblemError("not-found", f"There is no {path} on this port.")
        if path in self._health or path in OPEN or path.startswith(OPEN_BELOW):
            return None
        if not path.startswith(ADMIN_BELOW):
            return await self._require(scope, "predict")
        try:
            await self._require(scope, "admin")
        except ProblemError:
            state = scope["state"]
            act = f"{scope['method']} {path}"
            audit.record(act, state.get("caller"), state["request_id"], "refused", client=client_address(scope))
            raise

    async def _require(self, scope: Scope, wanted: Literal["predict", "admin"]) -> None:
        if self._authenticator is not None:
            caller = await self._authenticator.authenticate(scope["headers"])
            scope["state"]["caller"] = caller
            caller.require(wanted)
        elif wanted == "admin":
            raise ProblemError(
                "forbidden",
                "Admin routes need authentication: start the service with, for example, --jwt-secret-file, and send a "
                "token with the scope `admin`. SIGHUP reloads the bundle without one.",
            )


def declare_tokens(app: FastAPI, health: frozenset[str] = frozenset()) -> None:
    """Declare in the OpenAPI document which routes need a token.

    Args:
        app: application whose routes have been added.
        health: paths that count as health besides `HEALTH`.
    """
    made = app.openapi
    open_to_all = HEALTH | OPEN | health

    def openapi() -> dict[str, Any]:
        document = made()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        document["security"] = [{"token": []}]
        for path in open_to_all & document["paths"].keys():
            for operation in document["paths"][path].values():
                operation["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def client_address(scope: Scope) -> str:
    """The IP address that a request came from; behind a proxy, the proxy's."""
    return (scope.get("client") or ("unknown", 0))[0]
