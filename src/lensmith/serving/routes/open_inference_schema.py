"""Schemas of the Open Inference Protocol: they validate requests, and the OpenAPI document shows them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lensmith.serving.routes.json_body import Strict, Whole

IMAGE, TENSOR = "image", "input"
PROBABILITIES, CLASS_ID, LABEL = "probabilities", "class_id", "label"

Length = Annotated[Whole, Field(ge=1)]


class TensorParameters(Strict):
    """How a tensor is sent."""

    binary_data_size: Whole | None = Field(None, ge=0, description="Bytes behind the JSON part, in place of `data`.")


class ImageParameters(TensorParameters):
    """How the images of an input are sent."""

    content_type: Literal["base64"] | None = Field(None, description="In JSON, base64 is the default.")


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
    ) = Field(None, description="Images as base64, JPEG or PNG unless `formats` of the service says otherwise.")


class TensorInput(Strict):
    """N images that the client has preprocessed as the bundle's preprocessing does."""

    name: Literal["input"]
    datatype: Literal["FP32"]
    shape: Annotated[list[Length], Field(min_length=4, max_length=4, fail_fast=True)] = Field(
        description="[N, 3, S, S]."
    )
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(None, description="Finite numbers in row-major order, nested or not.")


class OutputParameters(Strict):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(None, description="Behind the JSON part, in place of `data`.")
    classification: Whole | None = Field(
        None,
        ge=1,
        description="For `probabilities`: so many classes as PROBABILITY:CLASS_ID:LABEL, likeliest first.",
    )
    shared_memory_region: None = Field(None, description="There is no shared memory.")


class WantedOutput(Strict):
    """A requested output."""

    name: Literal["probabilities", "class_id", "label"]
    parameters: OutputParameters | None = None


class RequestParameters(Strict):
    """Parameters of the whole request."""

    binary_data_output: bool | None = Field(None, description="Default of `binary_data` of the outputs.")


class InferRequest(Strict):
    """The JSON part of an inference request."""

    id: str | None = Field(None, max_length=1024, description="Comes back in the response.")
    parameters: RequestParameters | None = None
    inputs: Annotated[
        list[Annotated[ImageInput | TensorInput, Field(discriminator="name")]],
        Field(min_length=1, max_length=1, fail_fast=True),
    ] = Field(description="`image` or `input`, one of them.")
    outputs: Annotated[list[WantedOutput], Field(max_length=16, fail_fast=True)] | None = Field(
        None, description="All of them by default."
    )


class Live(BaseModel):
    """Response of the liveness probe."""

    live: bool


class Ready(BaseModel):
    """Response of the readiness probe."""

    ready: bool


class ModelReady(Ready):
    """Response of the readiness probe of a model."""

    name: str


class ServerMetadata(BaseModel):
    """Metadata of the server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """Metadata of an input or output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1: as many as there are images.")


class ModelMetadata(BaseModel):
    """Metadata of a model. A request has one of its inputs."""

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
    """The JSON part of a response."""

    model_name: str
    model_version: str
    id: str = Field(description="The request's, or else its X-Request-ID.")
    outputs: list[OutputTensor]
