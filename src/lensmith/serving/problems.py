"""Errors over HTTP: problem details by RFC 9457 (application/problem+json), the one envelope of every error.

A handler raises `ProblemError`; everything else that can go wrong (no such route, a bad query, a fault) is put into the
same envelope here, so that a client needs one way to read errors.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:lensmith:problem:"
OPEN_INFERENCE_BELOW = "/v2/"

KINDS: dict[str, tuple[int, str]] = {
    "unauthenticated": (401, "A valid token is needed"),
    "forbidden": (403, "The token does not allow this"),
    "not-found": (404, "There is nothing at this address"),
    "no-such-model": (404, "There is no such model here"),
    "no-such-answer": (404, "No such answer is known"),
    "method-not-allowed": (405, "This address does not take this method"),
    "not-acceptable": (406, "The answer cannot be had in the form that was asked for"),
    "too-slow": (408, "The upload took too long"),
    "follows-registry": (409, "The registry says which model is served"),
    "feedback-given": (409, "Another true label was given before"),
    "swap-under-way": (409, "Another model is just being loaded"),
    "too-large": (413, "The upload is too large"),
    "not-jpeg-or-png": (415, "The upload is in none of the formats taken here"),
    "content-encoding": (415, "The body is compressed"),
    "no-image": (422, "The request holds no image"),
    "unusable-image": (422, "The image cannot be used"),
    "unusable-bundle": (422, "The bundle cannot be served"),
    "no-such-label": (422, "The model has no such class"),
    "invalid-request": (422, "The request holds an unusable value"),
    "over-quota": (429, "The caller's quota is used up"),
    "internal-error": (500, "The service failed"),
    "feedback-away": (503, "True labels cannot be taken for now"),
    "no-memory": (503, "Too many uploads are under way"),
    "overloaded": (503, "The service is busy"),
    "not-ready": (503, "The service is still starting"),
    "draining": (503, "The service is stopping"),
    "expired": (504, "The request waited too long"),
}
"""Last part of `type` → status and title. Clients may rely on these names."""


class ProblemDetails(BaseModel):
    """The envelope of every error."""

    type: str = Field(description="What went wrong, for programs.", examples=[TYPE_PREFIX + "too-large"])
    title: str = Field(description="What went wrong, for people; the same text for every problem of this type.")
    status: int = Field(description="The HTTP status, repeated.")
    detail: str = Field(description="What was expected, what arrived, and what to do.")
    request_id: str = Field(description="The request's identifier, also in the X-Request-ID header.")


class ProblemWithError(ProblemDetails):
    """The envelope of errors below /v2, with the field that clients of the Open Inference Protocol read."""

    error: str = Field(description="The same as `detail`.")


class ProblemError(Exception):
    """An error that is sent to the client.

    Args:
        kind: a key of KINDS.
        detail: plain words for the client; nothing internal.
        headers: headers of the answer, for example Retry-After.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.title = KINDS[kind]
        self.kind = kind
        self.detail = detail.encode(errors="replace").decode()  # half a character, quoted from JSON, cannot be sent
        self.headers = headers

    def details(self, scope: Scope) -> ProblemDetails:
        """The envelope for a request."""
        return ProblemDetails(
            type=TYPE_PREFIX + self.kind,
            title=self.title,
            status=self.status,
            detail=self.detail,
            request_id=scope["state"]["request_id"],
        )

    def response(self, scope: Scope) -> Response:
        """The envelope as a response; the kind is noted as `problem` in the request's state, for metrics and logs."""
        scope["state"]["problem"] = self.kind
        details = self.details(scope)
        if f"{scope['path']}/".startswith(OPEN_INFERENCE_BELOW):
            details = ProblemWithError(**details.model_dump(), error=self.detail)
        return Response(details.model_dump_json(), self.status, self.headers, MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Register handlers for every expected error of `app`; `InternalErrorMiddleware` handles faults."""
    app.add_exception_handler(ProblemError, _raised)
    app.add_exception_handler(HTTPException, _from_routing)
    app.add_exception_handler(RequestValidationError, _from_validation)


def documented(*statuses: int, details: type[ProblemDetails] = ProblemDetails) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of the envelope, one for each status."""
    schema = details.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


async def _raised(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response(request.scope)


async def _from_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of one route only, where several share the address.
        here = [each for each in request.app.routes if each.matches(request.scope)[0] is not Match.NONE]
        allowed = {method for each in here for method in getattr(each, "methods", None) or ()}
        headers = {"Allow": ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))}
        problem = ProblemError("method-not-allowed", f"{request.method} is not for {path}.", headers)
    elif error.status_code == HTTPStatus.NOT_FOUND:
        problem = ProblemError("not-found", f"There is no {path} here; GET /openapi.json lists what there is.")
    else:
        problem = ProblemError("invalid-request", "The request cannot be understood.")
    return problem.response(request.scope)


async def _from_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return ProblemError("invalid-request", f"{found}.").response(request.scope)
