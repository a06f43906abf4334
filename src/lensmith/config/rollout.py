"""Settings of `lensmith rollout`."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lensmith.config.base import Settings


class RolloutSettings(Settings):
    """`lensmith rollout start`."""

    verb, command = "rollout", "rollout start"
    positional: ClassVar[tuple[str, ...]] = ("name",)

    name: str = Field(min_length=1, description="Name of the registered model, as flowers.")
    version: str = Field(description="Number of the challenger version; its rival is the one named champion.")
    share: float = Field(10.0, gt=0, le=100, description="Percent of the requests that the challenger gets.")
    shadow: bool = Field(False, description="Send the challenger copies of requests, and discard its answers.")
    auto_promote: bool = Field(False, description="Make the challenger champion automatically once its tests pass.")
    promote_after: int = Field(
        1000, ge=1, description="Requests to the challenger before it is promoted automatically, 500 or more."
    )
    sticky: Literal["request", "caller"] = Field(
        "request", description="What is hashed to split requests: the request, or the caller (with tokens)."
    )
    slo_ms: float = Field(200.0, gt=0, description="Latency objective in milliseconds for 99 of 100 answers.")
    map: list[str] | None = Field(
        None, description="Labels that differ, as CHALLENGER=CHAMPION, or CHALLENGER= for a new class; can be repeated."
    )
    tracking_uri: str | None = Field(
        None, description="MLflow server or database of the registry; that of the `tracking` settings by default."
    )

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, version: Any) -> Any:
        return str(version) if isinstance(version, int) else version

    @field_validator("version")
    @classmethod
    def _is_number(cls, version: str) -> str:
        if not version.isdecimal():
            raise ValueError("a version's number, as 7")
        return version

    @field_validator("map", mode="before")
    @classmethod
    def _as_pairs(cls, given: Any) -> Any:
        if isinstance(given, dict):  # from Python or lensmith.yaml
            return [f"{label}={other}" for label, other in given.items()]
        return [pair.strip() for pair in given.split(",")] if isinstance(given, str) else given

    @field_validator("map")
    @classmethod
    def _are_pairs(cls, pairs: list[str] | None) -> list[str] | None:
        if not all(pair.rpartition("=")[0] for pair in pairs or ()):
            raise ValueError("CHALLENGER=CHAMPION, or CHALLENGER= where the champion has no such class")
        return pairs

    @property
    def mapping(self) -> dict[str, str]:
        """The challenger's label → the champion's; an empty text for a class new to the champion."""
        return {label: other for label, _, other in (pair.rpartition("=") for pair in self.map or ())}
