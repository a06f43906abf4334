"""Middleware around every request, one class each: request ID and headers, metrics and access log, faults."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensmith.serving.metrics.telemetry import CLIENT_LEFT
from lensmith.serving.problems import ProblemError
from lensmith.serving.service import Service

logger = logging.getLogger(__name__)

SECURE_HEADERS = {
    # The page needs its own files and the preview of a picture that never left the browser's memory; nothing else.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_PREFIX = re.compile(rb"(/([A-Za-z0-9._~@:+-]|%[0-9A-Fa-f]{2})+){1,20}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class HeadersMiddleware:
    """Gives every request its ID and start time (`scope["state"]`); and the answer fixed headers and an X-Request-ID.

    A caller's own X-Request-ID is used if it matches `_REQUEST_ID`, so that one ID runs through several services, and
    nothing strange gets into logs and headers. During graceful shutdown answers ask clients to close their connection.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str], is_draining: Callable[[], bool]) -> None:
        self.app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        # Unique, but no secret: asking the system for randomness each time measured 30 to 120 µs beside busy threads.
        request_id = given if _REQUEST_ID.fullmatch(given) else b"%032x" % random.getrandbits(128)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        state["started"] = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers, (b"x-request-id", request_id)]
                if self._is_draining():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        return await self.app(scope, receive, send_with_headers)


class HeadMiddleware:
    """Answers HEAD as GET, without the content, at every address: balancers, monitors and `curl -I` ask so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)
        asked = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        try:
            await self.app(asked, receive, send_head)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]  # which metrics read


class ForwardedPrefixMiddleware:
    """Lets `/openapi.json` name the path below which proxies publish the service, by their X-Forwarded-Prefix.

    A proxy removes the prefix from the paths of requests. The document then lists it as the server's address, so that
    clients made from it ask below the prefix. Of several proxies each adds its own, the outermost first.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "http" and scope["path"] == "/openapi.json":
            given = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-prefix")
            prefix = b"".join(each.strip().rstrip(b"/") for each in given.split(b","))
            if _PREFIX.fullmatch(prefix):
                scope["root_path"] = prefix.decode()
        await self.app(scope, receive, send)


class ObservabilityMiddleware:
    """Counts and times every request by its route template, and may log it. Runs inside `HeadersMiddleware`."""

    def __init__(self, app: ASGIApp, service: Service, log: bool = False) -> None:
        self.app = app
        self._telemetry = service.telemetry
        self._split = service.rollout.split if service.rollout else None
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = CLIENT_LEFT

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        in_flight = self._telemetry.in_flight
        in_flight.inc()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            in_flight.dec()
            # Addresses that match no route share one name: a client must not be able to make up new series.
            route = getattr(scope.get("route"), "path", "unmatched")
            state = scope["state"]
            seconds = time.perf_counter() - state["started"]
            with self._telemetry.failures.guard("metrics"):
                self._telemetry.count_request(state, route, status, seconds)
            if self._split is not None:
                with self._telemetry.failures.guard("rollout"):
                    self._split.count_request(state, status, seconds)
            self._telemetry.flush()
            if self._log:
                request = {
                    "request_id": state["request_id"],
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(seconds * 1000, 3),
                    "caller": getattr(state.get("caller"), "subject", None),
                    "client": (scope.get("client") or [None])[0],
                    "problem": state.get("problem"),
                }
                logger.info("%s %s %s", scope["method"], route, status, extra=request)


class InternalErrorMiddleware:
    """Logs faults that no handler expected, and answers 500 without disclosing them.

    A client that left gets no answer. A request cut off because the grace period is over gets a 503.
    """

    def __init__(self, app: ASGIApp, is_draining: Callable[[], bool]) -> None:
        self.app = app
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            return await self.app(scope, receive, send_and_note)
        except ClientDisconnect:
            return None
        except asyncio.CancelledError:
            if started or not self._is_draining():
                raise
            problem = ProblemError("draining", "The service stopped before it could answer. Send the request again.")
        except Exception:
            request_id = scope["state"]["request_id"]
            logger.exception("request %s failed", request_id, extra={"request_id": request_id})
            if started:
                raise
            problem = ProblemError(
                "internal-error", "The fault is on this side. The request's identifier helps to find it."
            )
        return await problem.response(scope)(scope, receive, send)
