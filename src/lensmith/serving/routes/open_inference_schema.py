"""What the Open Inference Protocol sends and takes, as it is checked and as the OpenAPI document shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lensmith.serving.routes.json_body import Strict, Whole

IMAGE, TENSOR = "image", "input"
PROBABILITIES, CLASS_ID, LABEL = "probabilities", "class_id", "label"

Length = Annotated[Whole, Field(ge=1)]


class ImageParameters(Strict):
    """How the images of an input are sent."""

    content_type: Literal["base64"] | None = Field(None, description="In JSON it is base64 without being said.")
    binary_data_size: Whole | None = Field(None, ge=0, description="Bytes behind the JSON part, in place of `data`.")


class TensorParameters(Strict):
    """How a tensor is sent."""

    binary_data_size: Whole | None = Field(None, ge=0, description="Bytes behind the JSON part, in place of `data`.")


class ImageInput(Strict):
    """N encoded images."""

    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Length], Field(min_length=1, max_length=2, fail_fast=True)] = Field(
        description="[N] or [N, 1]."
    )
    parameters: ImageParameters | None = None
    data: (
        Annotated[
            list[str | Annotated[list[str], Field(min_length=1, max_length=1, fail_fast=True)]], Field(fail_fast=True)
        ]
        | None
    ) = Field(None, description="JPEG or PNG images as base64.")


class TensorInput(Strict):
    """N images that are prepared already, as the bundle's preprocessing does it."""

    name: Literal["input"]
    datatype: Literal["FP32"]
    shape: Annotated[list[Length], Field(min_length=4, max_length=4, fail_fast=True)] = Field(
        description="[N, 3, S, S]."
    )
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(None, description="Finite numbers in row-major order, nested or not.")


class OutputParameters(Strict):
    """How an output is wanted."""

    binary_data: bool | None = Field(None, description="Behind the JSON part, in place of `data`.")
    classification: Whole | None = Field(
        None, ge=1, description="Of `probabilities`: so many classes as PROBABILITY:CLASS_ID:LABEL, likeliest first."
    )
    shared_memory_region: None = Field(None, description="There is no shared memory.")


class WantedOutput(Strict):
    """One output that is wanted."""

    name: Literal["probabilities", "class_id", "label"]
    parameters: OutputParameters | None = None


class RequestParameters(Strict):
    """What holds for the whole request."""

    binary_data_output: bool | None = Field(None, description="`binary_data` of outputs that do not say it.")


class InferRequest(Strict):
    """The JSON part of an inference request."""

    id: str | None = Field(None, max_length=1024, description="Comes back in the answer.")
    parameters: RequestParameters | None = None
    inputs: Annotated[
        list[Annotated[ImageInput | TensorInput, Field(discriminator="name")]],
        Field(min_length=1, max_length=1, fail_fast=True),
    ] = Field(description="`image` or `input`, one of them.")
    outputs: Annotated[list[WantedOutput], Field(max_length=16, fail_fast=True)] | None = Field(
        None, description="All of them by default."
    )


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """Requests may be sent."""

    ready: bool


class ModelReady(Ready):
    """Requests to this model may be sent."""

    name: str


class ServerMetadata(BaseModel):
    """What serves."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1: as many as there are images.")


class ModelMetadata(BaseModel):
    """A model: what it takes and gives. Of its inputs a request has one."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """One output."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = Field(None, description="`binary_data_size`, where it is sent behind the JSON.")
    data: list[Any] | None = Field(None, description="In row-major order, not nested.")


class InferResponse(BaseModel):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    id: str = Field(description="The request's, or else its X-Request-ID.")
    outputs: list[OutputTensor]
