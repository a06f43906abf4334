"""Schemas of requests and responses, as the OpenAPI document shows them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from lensmith.bundle.format import Abstention
from lensmith.rollout.state import CanaryRelease, Decision
from lensmith.serving.problems import ProblemDetails


class RankedClass(BaseModel):
    """One class with its probability."""

    class_id: int = Field(description="Index in the model's labels.")
    label: str
    confidence: float = Field(description="Probability, 0 to 1 (softmax at the bundle's temperature, smoothed).")


class ModelName(BaseModel):
    """Name and version of a model."""

    name: str
    version: str


class Timings(BaseModel):
    """Where the time went inside the service, in milliseconds."""

    queue: float = Field(description="Waiting for a thread.")
    decode: float = Field(description="From the encoded bytes to the model's input.")
    inference: float = Field(description="From the model's input to the ranked classes.")
    total: float = Field(description="From the request's headers to its answer, reading and waiting included.")


class PredictResponse(RankedClass):
    """Response of POST /predict: the likeliest class, and the runners-up."""

    abstained: bool = Field(
        description="The confidence is below the model's threshold: the label is a guess, not an answer. "
        "Always false for a model without a threshold (`abstention` of GET /model)."
    )
    top: list[RankedClass] = Field(description="The likeliest classes by falling confidence, at most top_k.")
    model: ModelName
    request_id: str = Field(description="Also in the X-Request-ID header.")
    timings_ms: Timings


class BatchItem(BaseModel):
    """One image of several: its prediction, or its problem."""

    class_id: int | None = Field(None, description="Null where there is a problem, like all fields but `problem`.")
    label: str | None = None
    confidence: float | None = None
    abstained: bool | None = None
    top: list[RankedClass] | None = None
    problem: ProblemDetails | None = Field(None, description="Why there is no prediction; null where there is one.")


class BatchPredictResponse(BaseModel):
    """Response of POST /predict/batch."""

    results: list[BatchItem] = Field(description="In the order of the images.")
    model: ModelName
    request_id: str = Field(description="Also in the X-Request-ID header.")
    total_ms: float = Field(description="From the request's headers to its answer, in milliseconds.")


class SwapRequest(BaseModel):
    """Request of POST /admin/model."""

    bundle: str | None = Field(None, description="Bundle folder or zip on the service's disk; by default the same.")


class ModelCard(ModelName):
    """Response of GET /model."""

    created: datetime
    labels: list[str] = Field(description="Class names; a class_id is an index into them.")
    image_size: int = Field(description="Side of the square that the model sees, in pixels.")
    engine: str
    precision: str
    metrics: dict[str, Any] = Field(description="Metrics measured when the bundle was made.")
    abstention: Abstention | None = Field(description="When `abstained` is true; null: never.")
    loaded: list[ModelName] = Field(description="Models that may be asked for by name; the active one first.")
    formats: list[str] = Field(description="Image formats that are taken, as jpeg, png.")
    trained_formats: list[str] = Field(description="Formats of the training images; empty: not recorded.")
    shortest_px: int = Field(description="Shorter side, in pixels, below which a picture loses detail that is used.")
    value_ranges: dict[str, tuple[float, float]] = Field(
        description="Stored values of black and white by kind (uint16, float32 …), where files do not tell."
    )
    max_bytes: int = Field(description="Largest upload of one image, in bytes.")
    max_pixels: int = Field(description="Largest picture, in pixels.")
    max_images: int = Field(description="Most images of one request.")


class FeedbackResponse(BaseModel):
    """Response of POST /feedback."""

    label: str = Field(description="The true label, as it was given.")
    answered: str = Field(description="The label that the model had answered.")
    right: bool = Field(description="Whether they are the same.")
    new: bool = Field(description="False where the same had been given before; it then counts no second time.")
    noted: bool = Field(description="Whether it was written beside a stored upload.")
    model: ModelName


class VersionAccuracy(ModelName):
    """Accuracy of one version by feedback."""

    labels: int = Field(description="Answers whose true label was given.")
    right: int = Field(description="Those that the model had answered so.")
    accuracy: float = Field(description="right / labels")
    interval: tuple[float, float] = Field(description="Of the accuracy: 95 %, by Wilson's score.")


class OnlineAccuracy(BaseModel):
    """Response of GET /feedback."""

    versions: list[VersionAccuracy] = Field(description="Versions that feedback was given for, by name.")


class Status(BaseModel):
    """Response of the health probes."""

    status: str


class Readiness(Status):
    """Response of the readiness probe."""

    detail: str | None = Field(
        None, description="What somebody should look at while requests are answered; left out where there is nothing."
    )


class RolloutState(BaseModel):
    """The desired state in the registry, and the latest canary release."""

    name: str | None = Field(None, description="Registered model; null: what is served comes from no registry.")
    alias: str | None = Field(None, description="What is followed.")
    version: str | None = Field(None, description="What the alias names.")
    rollout: CanaryRelease | None = Field(None, description="The latest rollout; under way where there is no decision.")
    decision: Decision | None = Field(None, description="How it ended.")
    comparison: dict[str, Any] = Field({}, description="Both versions over all replicas.")
    trouble: str | None = Field(None, description="Why the challenger cannot be had here.")
    problem: str | None = Field(None, description="Why the registry is not followed; empty: it is.")
    reachable: bool | None = Field(None, description="Whether the registry answered the last time.")
    read_at: datetime | None = Field(None, description="When it last did.")
