"""`GET /ping` and `POST /invocations`: Amazon SageMaker's protocol for containers."""

import re
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from lensmith.config import ServeSettings
from lensmith.serving.problems import ProblemError
from lensmith.serving.routes.classify import (
    BINARY,
    TOP_K,
    batch_response,
    form_of,
    image_bodies,
    prediction_response,
    read_top_k,
)
from lensmith.serving.routes.fast_path import PREDICT_FAILURES, add_fast_route
from lensmith.serving.routes.health import add_readiness_probe
from lensmith.serving.routes.instances import answer_instances, instances_schema, read_instances
from lensmith.serving.schema import BatchPredictResponse, PredictResponse
from lensmith.serving.service import Service
from lensmith.serving.upload import is_form

ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_ATTRIBUTE = re.compile(r"(?:^|[,;])\s*(top_k|model)\s*=\s*([^,;\s]*)")
_JSON = frozenset({"*/*", "application/*", "application/json"})


def add_sagemaker(app: FastAPI, service: Service) -> None:
    """Add the routes to `app`."""

    async def invocations(request: Request) -> Response:
        """Classify images.

        One image, sent as the body itself, is answered as by POST /predict; those of a form, or of a JSON body with
        `instances`, as by POST /predict/batch. The custom attributes may hold `top_k=3` and `model=NAME@VERSION`, since
        SageMaker passes on no query.
        """
        await service.admit(request)
        _require_json_wanted(request)
        attributes = dict(_ATTRIBUTE.findall(request.headers.get(ATTRIBUTES, "")))
        top_k, wanted = read_top_k(attributes.get("top_k")), attributes.get("model")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        with service.upload_budget.share() as share:
            if content_type == "application/json":
                asked = await read_instances(service, request, share)
                if asked.parameters is not None:
                    top_k, wanted = asked.parameters.top_k, asked.parameters.model
                model = service.predictor.select_model(request, wanted)
                found = await answer_instances(service, request, asked.instances, top_k, model)
                return batch_response(found, request)
            model = service.predictor.select_model(request, wanted)
            if is_form(request):
                images = await service.uploads.images(request, share)
                await service.count_against_quota(request, len(images))
                return batch_response(await service.predictor.predict_many(request, images, top_k, model), request)
            await service.count_against_quota(request)
            encoded = await service.uploads.image(request, share)
            return prediction_response(await service.predictor.predict(request, encoded, top_k, model), request)

    add_readiness_probe(app, service, "/ping", "ping")
    add_fast_route(
        app,
        "/invocations",
        invocations,
        PredictResponse | BatchPredictResponse,
        sorted([*PREDICT_FAILURES, 406]),
        parameters=_PARAMETERS,
        requestBody=_body(service.settings),
    )


def _require_json_wanted(request: Request) -> None:
    wanted = [each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "").split(",")]
    if any(wanted) and not _JSON.intersection(wanted):
        raise ProblemError("not-acceptable", f"An answer is application/json; {', '.join(wanted)} was asked for.")


_PARAMETERS = [
    {
        "name": "X-Amzn-SageMaker-Custom-Attributes",
        "in": "header",
        "description": f"`top_k=3` ({TOP_K} by default) and `model=NAME@VERSION`, with a comma between; others are "
        "ignored.",
        "schema": {"type": "string"},
    }
]


def _body(settings: ServeSettings) -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "maxItems": settings.max_images, "items": BINARY["schema"]}
    return {
        "required": True,
        "content": {
            **image_bodies(settings.formats),
            "application/x-image": BINARY,
            "application/json": {"schema": instances_schema(settings.max_images)},
            "multipart/form-data": form_of(files),
        },
    }
