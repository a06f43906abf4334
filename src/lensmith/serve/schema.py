"""What the service answers, as it stands in the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from lensmith.bundle import Abstention


class RankedClass(BaseModel):
    """One class with its probability."""

    class_id: int = Field(description="Index in the model's labels.")
    label: str
    confidence: float = Field(description="Probability, 0 to 1 (softmax at the bundle's temperature).")


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str


class Timings(BaseModel):
    """Where the time went inside the service, in milliseconds."""

    decode: float = Field(description="From the encoded bytes to the model's input.")
    inference: float = Field(description="From the model's input to the ranked classes.")
    total: float = Field(description="From the request's headers to its answer: reading and waiting too.")


class Answer(RankedClass):
    """The answer of POST /predict: the likeliest class, and the runners-up."""

    abstained: bool = Field(
        description="The confidence is below the model's threshold: take the label for a guess, not for an answer. "
        "Always false for a model without a threshold (`abstention` of GET /model)."
    )
    top: list[RankedClass] = Field(description="The likeliest classes by falling confidence, at most top_k.")
    model: ModelName
    request_id: str = Field(description="Also in the X-Request-ID header.")
    timings_ms: Timings


class ModelCard(ModelName):
    """The answer of GET /model."""

    created: datetime
    labels: list[str] = Field(description="Class names; a class_id is an index into them.")
    image_size: int = Field(description="Side of the square that the model sees, in pixels.")
    engine: str
    precision: str
    metrics: dict[str, Any] = Field(description="As measured when the bundle was made.")
    abstention: Abstention | None = Field(description="When `abstained` is true; null: never.")
    max_bytes: int = Field(description="Largest upload, in bytes.")
    max_pixels: int = Field(description="Largest picture, in pixels.")


class Status(BaseModel):
    """The answer of the health routes."""

    status: str
