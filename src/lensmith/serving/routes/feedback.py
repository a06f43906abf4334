"""`POST /feedback` and `GET /feedback`: true labels of answers, and the online accuracy of each version."""

from fastapi import FastAPI
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lensmith.core.stats import wilson
from lensmith.serving.problems import documented
from lensmith.serving.routes.fast_path import add_fast_route, json_response
from lensmith.serving.routes.json_body import Strict, Whole, body_of, parse, schema_of
from lensmith.serving.schema import FeedbackResponse, OnlineAccuracy, VersionAccuracy
from lensmith.serving.service import Service

MAX_BYTES = 16_384
"""Largest body."""
MAX_VALUES = 100
"""Largest number of JSON values in a body; it needs three."""


class TrueLabel(Strict):
    """The body of POST /feedback."""

    request_id: str = Field(
        pattern=r"^[A-Za-z0-9._:/+=-]{1,128}$",
        description="The answer's request_id, which is also in its X-Request-ID header.",
    )
    label: str = Field(min_length=1, max_length=1000, description="The true class, one of the model's labels.")
    image: Whole = Field(0, ge=0, le=999_999, description="Which image of a request of several; the first is 0.")


def add_feedback(app: FastAPI, service: Service) -> None:
    """Add the routes to `app`."""

    async def give(request: Request) -> Response:
        """Send the true label of an answer of the last day; it counts once for each answer.

        The same label again changes nothing; another label is refused.
        """
        service.require_started()
        with service.upload_budget.share() as share:
            asked = parse(TrueLabel, await service.uploads.body(request, share, MAX_BYTES, "A body"), MAX_VALUES)
        return json_response(await service.feedback.give(asked.request_id, asked.image, asked.label))

    async def accuracy() -> OnlineAccuracy:
        """Online accuracy of each version since the service started, over the answers with feedback."""
        versions = []
        for model, right, wrong in await service.feedback.counts():
            labels = right + wrong
            found = {"labels": labels, "right": right, "accuracy": right / labels, "interval": wilson(right, labels)}
            versions.append(VersionAccuracy(**model._asdict(), **found))
        return OnlineAccuracy(versions=versions)

    failures = (401, 403, 404, 408, 409, 413, 415, 422, 500, 503)
    body = body_of(schema_of(TrueLabel), "The true label.")
    add_fast_route(app, "/feedback", give, FeedbackResponse, failures, requestBody=body)
    app.add_api_route("/feedback", accuracy, methods=["GET"], responses=documented(401, 403, 503))
