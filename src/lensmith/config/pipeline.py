"""The schema of a pipeline's YAML file: a section for each stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from lensmith.config.base import read_text
from lensmith.config.values import EXCLUDE, GROUP, LAYOUT, RELABEL, Group, Layout, Ratio
from lensmith.core.labels import canonical_label

Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


def _recall_floors(value: Any) -> Any:
    """One floor for all classes, or one for each class by name; labels that YAML reads as numbers become text."""
    if isinstance(value, Mapping):
        if any(isinstance(floor, bool) for floor in value.values()):
            raise ValueError("numbers, which yes and no are not")
        return {_label(label): floor for label, floor in value.items()}
    return {} if value is None else {"*": value}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _label(value: Any) -> Any:
    text = _text(value)
    return canonical_label(text) if isinstance(text, str) else text


Label = Annotated[str, BeforeValidator(_label)]
ChampionLabel = Annotated[str, BeforeValidator(_text)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: Any, known: ValidationInfo) -> Any:
        return read_text(value, cls.model_fields[str(known.field_name)])


class CheckSection(_Section):
    """Limits of the data check: what stops the pipeline before training."""

    max_unreadable: Percent = Field(1.0, description="Largest share of unreadable and empty files, in percent.")
    min_images: int = Field(4, ge=1, description="Smallest number of usable images in each class.")
    leaks: Literal["fail", "allow"] = Field(
        "fail", description="Data leakage: the same image in two parts of the data's own split."
    )
    conflicts: Literal["fail", "allow"] = Field("fail", description="The same image under two classes.")


class SplitSection(_Section):
    """The split into train, validation and test images, where the data set brings none."""

    ratio: Ratio = Field((5, 3, 2), description="train:val:test")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")


class EvaluateSection(_Section):
    """The report on the test images; it has no settings."""


class GateSection(_Section):
    """Limits that a new model must keep to be registered; confidence intervals are at 95 %."""

    champion: str = Field(
        "auto", description="Model to compare with: auto (MODEL@champion, if there is one), none, or a bundle."
    )
    strict: bool = Field(
        False, description="Also refuse a model whose interval contains the limit, not only one that breaks it."
    )
    accuracy_drop: Percent | None = Field(
        0.5, description="Largest loss of accuracy against the champion, in percentage points."
    )
    recall_drop: Percent | None = Field(
        10.0, description="Largest loss of recall of any class against the champion, in percentage points."
    )
    calibration_rise: Percent | None = Field(
        5.0, description="Largest rise of the calibration error over the champion's, in percentage points."
    )
    latency_ratio: float | None = Field(
        1.5, gt=0, description="Largest latency as a multiple of the champion's, both measured on this machine."
    )
    size_ratio: float | None = Field(
        None, gt=0, description="Largest size of the engine's files as a multiple of the champion's."
    )
    above_commonest: bool = Field(
        True, description="Require accuracy significantly above that of always predicting the commonest class."
    )
    min_accuracy: Fraction | None = Field(None, description="Smallest accuracy, 0..1.")
    min_recall: Annotated[dict[str, Fraction], BeforeValidator(_recall_floors)] = Field(
        {}, description="Smallest recall of every class, 0..1; or by class, as {CLASS: FLOOR}, where `*` is the rest."
    )
    max_calibration_error: Fraction | None = Field(None, description="Largest expected calibration error, 0..1.")
    max_latency_ms: float | None = Field(
        None, gt=0, description="Largest median latency of one image on one core, in milliseconds."
    )
    max_size_mb: float | None = Field(None, gt=0, description="Largest size of the engine's files, in MB of 10⁶ bytes.")
    resamples: int = Field(4000, ge=2000, le=1_000_000, description="Number of bootstrap resamples.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the bootstrap.")


class RegisterSection(_Section):
    """The new version in the model registry."""

    model: str | None = Field(
        None, pattern=r"^\w[\w. -]*$", description="Name of the registered model; the pipeline's name by default."
    )
    alias: str | None = Field(None, pattern=r"^[A-Za-z_][\w.-]*$", description="Alias that is set to the new version.")
    tracking_uri: str | None = Field(None, description="MLflow server or database; that of `tracking` by default.")


class RolloutSection(_Section):
    """The canary release of the new version; the first version of a model becomes champion at once."""

    share: float = Field(10.0, gt=0, le=100, description="Percent of the requests that the challenger gets.")
    shadow: bool = Field(False, description="Send the challenger copies of requests, and discard its answers.")
    auto_promote: bool = Field(False, description="Make the challenger champion automatically once its tests pass.")
    promote_after: int = Field(
        1000, ge=1, description="Requests to the challenger before it is promoted automatically."
    )
    sticky: Literal["request", "caller"] = Field("request", description="What is hashed to split requests.")
    slo_ms: float = Field(200.0, gt=0, description="Latency objective in milliseconds for 99 of 100 answers.")


class PipelineFile(_Section):
    """A pipeline's validated file; a section that is None is a stage that is off."""

    name: str = Field(
        pattern=r"^\w[\w.-]*$", max_length=100, description="Name of the pipeline, its folder and its model."
    )
    data: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    layout: Layout = Field("auto", description=LAYOUT)
    group: Group = Field("none", description=GROUP)
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    check: CheckSection | None = Field(CheckSection(), description="Checks of every image file before training.")
    split: SplitSection | None = Field(
        SplitSection(), description="Split into train, val and test; false if the data set brings one."
    )
    train: dict[str, Any] = Field(
        {}, description="Settings of `lensmith train`, and `recipe`: a recipe file that they override."
    )
    evaluate: EvaluateSection | None = Field(EvaluateSection(), description="Report on the test images.")
    export: dict[str, Any] | None = Field(
        {}, description="Settings of `lensmith export`; false keeps the bundle that training makes."
    )
    gate: GateSection | None = Field(GateSection(), description="Limits that the new model must keep.")
    register_: RegisterSection | None = Field(
        RegisterSection(), alias="register", description="New version in the model registry."
    )
    rollout: RolloutSection | None = Field(RolloutSection(), description="Canary release of the new version.")
    mapping: dict[Label, ChampionLabel | None] = Field(
        {}, description="The new model's label → the champion's, where they differ; ~ for a class new to the champion."
    )
    keep: int = Field(3, ge=1, description="Number of results that stay on disk for each stage.")

    @property
    def reading(self) -> dict[str, Any]:
        """The settings by name that say how the data is read, which check, split and training share."""
        return {name: getattr(self, name) for name in ("layout", "group", "exclude", "relabel")}

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return (self.register_ and self.register_.model) or self.name

    @property
    def tracking_uri(self) -> str | None:
        """The MLflow address that the file names; None: the default one, or nothing is registered."""
        return self.register_.tracking_uri if self.register_ else None


SECTIONS: dict[str, type[BaseModel]] = {
    "check": CheckSection, "split": SplitSection, "evaluate": EvaluateSection, "gate": GateSection,
    "register": RegisterSection, "rollout": RolloutSection,
}  # fmt: skip
"""Sections with a schema of their own; train and export have that of their verbs."""
OPTIONAL_STAGES = (*SECTIONS, "export")
"""Stages that `false` switches off."""
