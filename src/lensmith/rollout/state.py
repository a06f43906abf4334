"""A rollout, the decision that ends it, and the desired state that a service follows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def now() -> datetime:
    """The current time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class CanaryRelease(BaseModel):
    """A canary release: a challenger that gets a share of the champion's requests. Never changed once begun."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(description="unique, such as flowers-7; salt of the hash that splits requests")
    name: str = Field(description="registered model")
    champion: str = Field(description="version that the alias champion names when the rollout begins")
    challenger: str = Field(description="version that is compared with the champion")
    share: float = Field(10.0, gt=0, le=100, description="requests that the challenger answers (or copies), in percent")
    shadow: bool = Field(False, description="shadow mode: the challenger works on copies, and nobody sees its answers")
    auto_promote: bool = Field(False, description="promote the challenger automatically once the guards allow it")
    promote_after: int = Field(1000, ge=1, description="challenger requests before it can be promoted automatically")
    sticky: Literal["request", "caller"] = Field(
        "request", description="key of the canary split: the request's identifier, or the caller (with tokens)"
    )
    slo_ms: float = Field(200.0, gt=0, description="latency that 99 of 100 requests must not exceed, in milliseconds")
    mapping: dict[str, str] = Field({}, description="the challenger's label → the champion's, where they differ")
    started: datetime = Field(default_factory=now)
    by: str = Field("", description="person who began it")


class Decision(BaseModel):
    """The end of a rollout, written once by the first replica or person to decide."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: Literal["promoted", "rolled_back", "aborted"]
    guard: str = Field("", description="what decided: load, not-finite, errors-in-a-row, errors, latency, classes, …")
    reason: str = Field(description="the numbers in a sentence")
    at: datetime = Field(default_factory=now)
    by: str = Field("", description="replica or person")
    figures: dict[str, Any] = Field({}, description="both versions' figures at that moment")


class DesiredState(BaseModel):
    """What a service is to serve, as the registry last said; cached on disk, so that it can start without a registry.

    `path` and `challenger_path` are verified bundles on this machine.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    alias: str
    version: str = Field(description="version that is served under the alias")
    path: Path
    rollout: CanaryRelease | None = Field(None, description="latest rollout; under way while there is no decision")
    decision: Decision | None = None
    challenger_path: Path | None = Field(None, description="None: not pulled yet, or it cannot be (see `trouble`)")
    trouble: str = Field("", description="why the challenger's bundle cannot be pulled")
    comparison: dict[str, Any] = Field({}, description="both versions over all replicas: `Assessment.figures`")
    problem: str = Field("", description="why the registry could not be followed at the last poll; empty: it was")
    reachable: bool = Field(True, description="whether the registry answered the last poll")
    read_at: datetime = Field(default_factory=now, description="time of the last poll that it answered")
