"""What a canary release is, what came of it, and what a service knows of both."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def now() -> datetime:
    """In UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class CanaryRelease(BaseModel):
    """A challenger that gets a share of the champion's requests. Never changed once begun."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(description="unique, such as flowers-7; the hash that shares requests out is salted with it")
    name: str = Field(description="registered model")
    champion: str = Field(description="its version in the registry that answers when the release begins")
    challenger: str = Field(description="the version that is tried")
    share: float = Field(10.0, gt=0, le=100, description="requests that the challenger answers (or copies), in percent")
    shadow: bool = Field(False, description="the challenger works on copies, and nobody sees its answers")
    auto_promote: bool = Field(False, description="promote it by itself once it is proven")
    promote_after: int = Field(1000, ge=1, description="requests to the challenger before it can be promoted by itself")
    sticky: Literal["request", "caller"] = Field(
        "request", description="what is hashed: the request's identifier, or who calls (with tokens)"
    )
    slo_ms: float = Field(200.0, gt=0, description="latency within which 99 of 100 answers have to be")
    mapping: dict[str, str] = Field({}, description="the challenger's label → the champion's, where they differ")
    started: datetime = Field(default_factory=now)
    by: str = Field("", description="who began it")


class Decision(BaseModel):
    """The end of a canary release: written once, by whoever saw the reason first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: Literal["promoted", "rolled_back", "aborted"]
    guard: str = Field("", description="what decided: load, not-finite, errors-in-a-row, errors, latency, classes, …")
    reason: str = Field(description="the numbers, in words")
    at: datetime = Field(default_factory=now)
    by: str = Field("", description="the replica or person")
    figures: dict[str, Any] = Field({}, description="both versions' figures at that moment")


class DesiredState(BaseModel):
    """What a service last knew of the model it serves; kept on disk, so that it can start and go on without a registry.

    `path` and `challenger_path` are verified bundles on this machine.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    alias: str
    version: str = Field(description="in the registry, of what the alias names")
    path: Path
    rollout: CanaryRelease | None = Field(None, description="the latest; under way where there is no decision")
    decision: Decision | None = None
    challenger_path: Path | None = Field(None, description="None: not here yet, or it cannot be had (see `trouble`)")
    trouble: str = Field("", description="why the challenger's bundle cannot be had")
    comparison: dict[str, Any] = Field({}, description="both versions over all replicas: `guard.figures`")
    reachable: bool = Field(True, description="whether the registry answered the last time")
    read_at: datetime = Field(default_factory=now, description="when it last did")
