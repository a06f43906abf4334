"""Settings of `lensmith rollout`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lensmith.config.base import Settings


class RolloutSettings(Settings):
    """`lensmith rollout start`."""

    verb = "rollout"
    positional: ClassVar[tuple[str, ...]] = ("name",)

    name: str = Field(min_length=1, description="Registered model, as flowers.")
    version: str = Field(description="The version to try beside the one that the alias champion names.")
    share: float = Field(10.0, gt=0, le=100, description="Percent of the requests that it answers, or gets copies of.")
    shadow: bool = Field(False, description="It works on copies, and nobody sees its answers.")
    auto_promote: bool = Field(False, description="Promote it by itself once it is proven.")
    promote_after: int = Field(
        1000, ge=1, description="Requests to it before it can be promoted by itself; less than 500 are taken for 500."
    )
    sticky: Literal["request", "caller"] = Field(
        "request", description="What decides who answers: each request for itself, or who calls (with tokens)."
    )
    slo_ms: float = Field(200.0, gt=0, description="Latency in milliseconds within which 99 of 100 answers have to be.")
    map: list[str] | None = Field(
        None,
        description="CHALLENGER=CHAMPION: the challenger's label and the champion's for the same; CHALLENGER= counts "
        "it as another class. May be said several times.",
    )
    tracking_uri: str | None = Field(
        None, description="MLflow's registry; see the settings of tracking for where it is by default."
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
        """The challenger's label → the champion's, or nothing."""
        return {label: other for label, _, other in (pair.rpartition("=") for pair in self.map or ())}
