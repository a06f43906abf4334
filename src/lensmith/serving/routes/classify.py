"""`POST /predict`, `POST /predict/batch` and `GET /model`: lensmith's own protocol."""

import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from lensmith.imaging.formats import FORMATS
from lensmith.imaging.preprocessing import shortest_side_px
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.problems import ProblemError, documented
from lensmith.serving.routes.fast_path import PREDICT_FAILURES, add_fast_route, json_response
from lensmith.serving.schema import (
    BatchItem,
    BatchPredictResponse,
    ModelCard,
    ModelName,
    PredictResponse,
    RankedClass,
    Timings,
)
from lensmith.serving.service import Service
from lensmith.serving.upload import FIELD

TOP_K = 5


def add_classify(app: FastAPI, service: Service) -> None:
    """Add the routes to `app`."""

    def query_of(request: Request) -> tuple[int, LoadedModel]:
        query = request.query_params
        return read_top_k(query.get("top_k")), service.predictor.select_model(request, query.get("model"))

    async def predict(request: Request) -> Response:
        """Classify one image, sent as the body itself or in the form field `file`."""
        top_k, model = query_of(request)
        await service.admit(request)
        await service.count_against_quota(request)
        with service.upload_budget.share() as share:
            encoded = await service.uploads.image(request, share)
            found = await service.predictor.predict(request, encoded, top_k, model)
        return prediction_response(found, request)

    async def batch(request: Request) -> Response:
        """Classify the images of a form, one or more in the field `file`.

        An image that cannot be used has its problem in its place of `results`; the others are classified.
        """
        top_k, model = query_of(request)
        await service.admit(request)
        with service.upload_budget.share() as share:
            images = await service.uploads.images(request, share)
            await service.count_against_quota(request, len(images))
            found = await service.predictor.predict_many(request, images, top_k, model)
        return batch_response(found, request)

    async def model() -> ModelCard:
        """The active model, and the limits on requests."""
        models, settings = service.models, service.settings
        manifest, engine = models.active.classifier.bundle.manifest, models.active.classifier.engine
        return ModelCard(
            name=models.active.name,
            version=models.active.version,
            created=manifest.created,
            labels=list(manifest.labels),
            image_size=manifest.preprocessing.image_size,
            engine=engine.name,
            precision=engine.precision,
            metrics=manifest.metrics,
            abstention=manifest.abstention,
            loaded=[model_name(each) for each in models.all],
            formats=list(settings.formats),
            trained_formats=list(manifest.formats),
            shortest_px=shortest_side_px(manifest.preprocessing),
            value_ranges=dict(manifest.preprocessing.value_ranges),
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            max_images=settings.max_images,
        )

    for path, handler, answer, body in (
        ("/predict", predict, PredictResponse, _one(service.settings.formats)),
        ("/predict/batch", batch, BatchPredictResponse, _MANY),
    ):
        add_fast_route(app, path, handler, answer, PREDICT_FAILURES, parameters=_PARAMETERS, requestBody=body)
    app.add_api_route("/model", model, responses=documented(401, 403))


def read_top_k(given: str | None) -> int:
    """Read the number of classes to name; TOP_K by default.

    Raises:
        ProblemError: not a whole number from 1 on.
    """
    if given is None:
        return TOP_K
    top_k = int(given) if given.isdecimal() and given.isascii() and len(given) < 10 else 0
    if top_k < 1:
        raise ProblemError("invalid-request", f"top_k: a whole number from 1 on was expected, {given!r} arrived.")
    return top_k


def prediction_response(found: TimedPrediction, request: Request) -> Response:
    """The response for one image."""
    state = request.scope["state"]
    timings = Timings(
        queue=milliseconds(found.queue_s),
        decode=milliseconds(found.decode_s),
        inference=milliseconds(found.inference_s),
        total=milliseconds(time.perf_counter() - state["started"]),
    )
    content = PredictResponse(
        **_fields(found), model=model_name(state["model"]), request_id=state["request_id"], timings_ms=timings
    )
    return json_response(content)


def batch_response(found: Sequence[TimedPrediction | ProblemError], request: Request) -> Response:
    """The response for several images, each in its place."""
    state = request.scope["state"]
    content = BatchPredictResponse(
        results=[item(each, request) for each in found],
        model=model_name(state["model"]),
        request_id=state["request_id"],
        total_ms=milliseconds(time.perf_counter() - state["started"]),
    )
    return json_response(content)


def model_name(model: LoadedModel) -> ModelName:
    """A model's name and version, as they are sent."""
    return ModelName(name=model.name, version=model.version)


def item(found: TimedPrediction | ProblemError, request: Request) -> BatchItem:
    """One image of several, as it is sent: its prediction, or its problem."""
    if isinstance(found, ProblemError):
        return BatchItem(problem=found.details(request.scope))
    return BatchItem(**_fields(found))


def _fields(found: TimedPrediction) -> dict[str, Any]:
    top = [RankedClass(**vars(each)) for each in found.prediction.top]
    return {**vars(found.prediction.top[0]), "abstained": found.prediction.abstained, "top": top}


def milliseconds(seconds: float) -> float:
    """Seconds in milliseconds, rounded to the microsecond."""
    return round(seconds * 1000, 3)


_PARAMETERS = [
    {
        "name": "top_k",
        "in": "query",
        "description": "Classes to name, likeliest first.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": TOP_K},
    },
    {
        "name": "model",
        "in": "query",
        "description": "Another of the loaded models than the active one, as NAME or NAME@VERSION.",
        "schema": {"type": "string"},
    },
]
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
"""OpenAPI entry of bytes."""


def form_of(content: Any) -> dict[str, Any]:
    """OpenAPI entry of a form whose field `file` has this schema."""
    return {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: content}}}


def image_bodies(formats: Sequence[str]) -> dict[str, Any]:
    """OpenAPI entries of bodies that are an image of one of these formats."""
    return dict.fromkeys((FORMATS[key].mime for key in formats), BINARY)


def _one(formats: Sequence[str]) -> dict[str, Any]:
    return {
        "required": True,
        "description": f"The image itself, or a form with the image in the field `{FIELD}`.",
        "content": {"multipart/form-data": form_of(BINARY["schema"]), **image_bodies(formats)},
    }


_MANY = {
    "required": True,
    "description": f"A form with images in the field `{FIELD}`, which may occur several times.",
    "content": {"multipart/form-data": form_of({"type": "array", "minItems": 1, "items": BINARY["schema"]})},
}
