"""`/v2/…`: the Open Inference Protocol, version 2, over HTTP, with binary tensors and classification."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from lensmith.core.version import __version__
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.problems import ProblemError, ProblemWithError
from lensmith.serving.routes.classify import BINARY
from lensmith.serving.routes.fast_path import PREDICT_FAILURES, add_fast_route, json_response
from lensmith.serving.routes.json_body import body_of, json_limit, schema_of
from lensmith.serving.routes.open_inference_request import LENGTH, ParsedRequest, RequestedOutput, of_image, read
from lensmith.serving.routes.open_inference_schema import (
    CLASS_ID,
    IMAGE,
    LABEL,
    PROBABILITIES,
    TENSOR,
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    ModelReady,
    OutputTensor,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from lensmith.serving.service import Service

JSON_BYTES = "inference-header-content-length"
EXTENSIONS = ["binary_tensor_data", "classification"]


def add_open_inference(app: FastAPI, service: Service) -> None:
    """Add the routes to `app`."""

    def model_of(request: Request) -> LoadedModel:
        name, version = request.path_params["name"], request.path_params.get("version")
        return service.predictor.select_model(request, name if version is None else f"{name}@{version}")

    async def live(_request: Request) -> Response:
        """Whether the process answers at all."""
        return json_response(Live(live=True))

    async def ready(_request: Request) -> Response:
        """Whether to send requests here."""
        service.require_ready()
        return json_response(Ready(ready=True))

    async def server(_request: Request) -> Response:
        """Metadata of the server."""
        return json_response(ServerMetadata(name="lensmith", version=__version__, extensions=EXTENSIONS))

    async def model(request: Request) -> Response:
        """Metadata of a model: its inputs and outputs."""
        model = model_of(request)
        return json_response(
            ModelMetadata(
                name=model.name,
                versions=list(dict.fromkeys(each.version for each in service.models.all if each.name == model.name)),
                platform=f"lensmith_{model.classifier.engine.name}",
                inputs=[
                    TensorMetadata(name=IMAGE, datatype="BYTES", shape=[-1]),
                    TensorMetadata(name=TENSOR, datatype="FP32", shape=[-1, *model.input_shape]),
                ],
                outputs=[
                    TensorMetadata(name=PROBABILITIES, datatype="FP32", shape=[-1, len(model.labels)]),
                    TensorMetadata(name=CLASS_ID, datatype="INT64", shape=[-1]),
                    TensorMetadata(name=LABEL, datatype="BYTES", shape=[-1]),
                ],
            )
        )

    async def model_ready(request: Request) -> Response:
        """Whether to send requests to a model."""
        model = model_of(request)
        service.require_ready()
        return json_response(ModelReady(name=model.name, ready=True))

    async def infer(request: Request) -> Response:
        """Classify encoded images (`image`) or preprocessed ones (`input`).

        The header Inference-Header-Content-Length is the length of the JSON part in bytes, where a binary part follows.
        One image that cannot be used fails the request, as the protocol has no error for a single image.
        """
        settings = service.settings
        await service.admit(request)
        model, json_bytes = model_of(request), _json_bytes(request)
        limit = json_limit(settings.max_bytes)
        if json_bytes is not None:
            one = max(settings.max_bytes + 4, 4 * math.prod(model.input_shape))
            limit = min(json_bytes, limit) + settings.max_images * one
        with service.upload_budget.share() as share:
            body = await service.uploads.body(request, share, limit, "A body")
            asked = read(body, json_bytes, model, settings.max_images, service.uploads.limits)
            del body  # the images have been copied from it
            await service.count_against_quota(request, len(asked.images))
            found = await answer(request, asked, model)
        return _response(asked, found, model, request.scope["state"]["request_id"])

    async def answer(request: Request, asked: ParsedRequest, model: LoadedModel) -> list[TimedPrediction]:
        if len(asked.images) == 1:
            return [await service.predictor.predict(request, asked.images[0], asked.top_k, model)]
        found = []
        answers = await service.predictor.predict_many(request, asked.images, asked.top_k, model)
        for number, each in enumerate(answers):
            if isinstance(each, ProblemError):
                raise of_image(number, each)
            found.append(each)
        return found

    add = partial(add_fast_route, app, details=ProblemWithError)
    add("/v2", server, ServerMetadata, [401, 403], method="GET")
    add("/v2/health/live", live, Live, [], method="GET")
    add("/v2/health/ready", ready, Ready, [503], method="GET")
    for path, names in (("/v2/models/{name}", ["name"]), ("/v2/models/{name}/versions/{version}", ["name", "version"])):
        parts = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        add(path, model, ModelMetadata, [401, 403, 404], method="GET", parameters=parts)
        add(f"{path}/ready", model_ready, ModelReady, [401, 403, 404, 503], method="GET", parameters=parts)
        parameters = [*parts, _JSON_BYTES]
        add(f"{path}/infer", infer, InferResponse, PREDICT_FAILURES, parameters=parameters, requestBody=_BODY)


def _response(asked: ParsedRequest, found: Sequence[TimedPrediction], model: LoadedModel, request_id: str) -> Response:
    outputs, raw = [], []
    for wanted in asked.outputs:
        datatype, values = _output(wanted, found)
        if wanted.binary:
            raw.append(_as_bytes(values))
            content: dict[str, Any] = {"parameters": {"binary_data_size": len(raw[-1])}}
        else:
            content = {"data": values.ravel().tolist()}
        outputs.append(OutputTensor(name=wanted.name, datatype=datatype, shape=list(values.shape), **content))
    answer = InferResponse(
        model_name=model.name,
        model_version=model.version,
        id=request_id if asked.id is None else asked.id,
        outputs=outputs,
    )
    head = to_json(answer, exclude_none=True)
    if not raw:
        return Response(head, media_type="application/json")
    return Response(head + b"".join(raw), 200, {JSON_BYTES: str(len(head))}, "application/octet-stream")


def _output(wanted: RequestedOutput, found: Sequence[TimedPrediction]) -> tuple[str, np.ndarray[Any, np.dtype[Any]]]:
    """Datatype and values of an output: float32 (N, C), int64 (N,), or object (N,) or (N, classes) of texts."""
    predictions = [each.prediction for each in found]
    if wanted.classes:
        texts = [
            [f"{one.confidence:f}:{one.class_id}:{one.label}" for one in each.top[: wanted.classes]]
            for each in predictions
        ]
        return "BYTES", np.array(texts, dtype=object)
    if wanted.name == PROBABILITIES:
        return "FP32", np.stack([each.probabilities for each in predictions if each.probabilities is not None])
    if wanted.name == CLASS_ID:
        return "INT64", np.array([each.class_id for each in predictions], dtype=np.int64)
    return "BYTES", np.array([each.label for each in predictions], dtype=object)


def _as_bytes(values: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    encoded = [str(each).encode() for each in values.ravel()]
    return b"".join(LENGTH.pack(len(each)) + each for each in encoded)


def _json_bytes(request: Request) -> int | None:
    given = request.headers.get(JSON_BYTES)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 12):
        raise ProblemError("invalid-request", f"{JSON_BYTES}: a number of bytes was expected, {given!r} arrived.")
    return int(given)


_JSON_BYTES = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of the JSON part, where a binary part follows it.",
    "schema": {"type": "integer", "minimum": 0},
}
_BODY = body_of(schema_of(InferRequest), "JSON, or the same with binary data behind it.")
_BODY["content"]["application/octet-stream"] = BINARY
