"""`{"instances": [{"b64": …}]}`: several images as base64 in JSON, for SageMaker and Vertex AI."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request

from lensmith.serving.execution.admission import UploadShare
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.problems import ProblemError
from lensmith.serving.routes.classify import TOP_K
from lensmith.serving.routes.json_body import Strict, Whole, image_from_base64, json_limit, parse, schema_of
from lensmith.serving.service import Service

MAX_BYTES = 25_000_000
"""Largest body: SageMaker's own limit. It was read in 9 ms, and an image of 5 MB decoded from it in 14 ms."""
MAX_VALUES = 10_000
"""Largest number of values in a body: images are few, whatever their bytes."""


class Encoded(Strict):
    """An encoded image."""

    b64: str = Field(description="An image as base64, JPEG or PNG unless `formats` of the service says otherwise.")


class Named(Strict):
    """An image under the name of an input."""

    image: Encoded


class Parameters(Strict):
    """Parameters of all instances."""

    top_k: Whole = Field(TOP_K, ge=1, le=999_999_999, description="Classes to name, likeliest first.")
    model: str | None = Field(None, description="Another of the loaded models, as NAME or NAME@VERSION.")


class Instances(Strict):
    """Request with several images."""

    instances: Annotated[list[Encoded | Named], Field(min_length=1, fail_fast=True)]
    parameters: Parameters | None = None


def instances_schema(max_images: int) -> dict[str, Any]:
    """JSON Schema of a request, for the OpenAPI document."""
    schema = schema_of(Instances)
    schema["properties"]["instances"]["maxItems"] = max_images
    return schema


async def read_instances(service: Service, request: Request, share: UploadShare) -> Instances:
    """Read a request's instances without looking at their images.

    Raises:
        ProblemError: too large, too many, or not as expected.
        ClientDisconnect: the client left while sending.
    """
    uploads = service.uploads
    limit = max(MAX_BYTES, json_limit(uploads.max_bytes))
    asked = parse(Instances, await uploads.body(request, share, limit, "A body"), MAX_VALUES)
    if len(asked.instances) > uploads.max_images:
        raise ProblemError(
            "invalid-request", f"At most {uploads.max_images} instances were expected, {len(asked.instances)} arrived."
        )
    return asked


async def answer_instances(
    service: Service, request: Request, instances: Sequence[Encoded | Named], top_k: int, model: LoadedModel
) -> list[TimedPrediction | ProblemError]:
    """Classify instances, in their order; one that cannot be used fails alone.

    Raises:
        ProblemError: over quota, or overloaded.
        ClientDisconnect: the client left.
    """
    await service.count_against_quota(request, len(instances))
    images: list[bytes] = []
    problems: dict[int, ProblemError] = {}
    for place, each in enumerate(instances):
        text = each.b64 if isinstance(each, Encoded) else each.image.b64
        try:
            images.append(image_from_base64(text, service.uploads.limits))
        except ProblemError as problem:
            problems[place] = problem
            images.append(b"")  # each image stays in its place
        await asyncio.sleep(0)  # lets other requests come between
    answers = await service.predictor.predict_many(request, images, top_k, model)
    return [problems.get(place, answer) for place, answer in enumerate(answers)]
