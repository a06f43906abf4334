"""What may stand in a pipeline's file, and a file read with all its mistakes told together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lensmith.config.base import YamlLoader
from lensmith.config.values import Ratio
from lensmith.errors import SettingsError

SWITCHES = ("check", "split", "evaluate", "export", "gate", "register", "rollout")
"""Stages that `false` switches off."""

Share = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=0, le=100)]
Where = tuple[str, ...]
"""Of a value in the file: the names that lead to it."""


def _floors(value: Any) -> Any:
    """One floor for all classes, or one each by name; names that YAML reads as numbers are names."""
    if isinstance(value, Mapping):
        return {_text(label): floor for label, floor in value.items()}
    return {} if value is None else {"*": value}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CheckSection(_Section):
    """When the data is too bad to be trained on."""

    max_unreadable: Points = Field(1.0, description="Unreadable and empty files at most, in percent of the images.")
    min_images: int = Field(4, ge=1, description="Usable images that each class must have.")
    leaks: Literal["fail", "allow"] = Field("fail", description="The same image in two parts that the data brings.")
    conflicts: Literal["fail", "allow"] = Field("fail", description="The same image under two classes.")


class SplitSection(_Section):
    """Which image trains, validates and tests, where the data brings no parts."""

    ratio: Ratio = Field((5, 3, 2), description="train:val:test")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")


class EvaluateSection(_Section):
    """The report on the test part; it has no settings."""


class GateSection(_Section):
    """How good a new model must be; intervals are at 95 %."""

    champion: str = Field(
        "auto", description="What it is compared with: auto (MODEL@champion, if there is one), none, or a bundle."
    )
    strict: bool = Field(
        False, description="Refuse also what cannot be shown to keep a limit, not only what breaks it."
    )
    accuracy_drop: Points | None = Field(0.5, description="Accuracy lost against the champion, in points of 100.")
    recall_drop: Points | None = Field(10.0, description="Recall that any class may lose, in points of 100.")
    calibration_rise: Points | None = Field(
        5.0, description="By how much the calibration error may rise, in points of 100."
    )
    latency_ratio: float | None = Field(1.5, gt=0, description="Latency over the champion's, both measured here.")
    size_ratio: float | None = Field(None, gt=0, description="Size of the engine's files over the champion's.")
    above_commonest: bool = Field(
        True, description="Accuracy must be shown to be above that of always naming the commonest class."
    )
    min_accuracy: Share | None = Field(None, description="Accuracy at least, 0..1.")
    min_recall: Annotated[dict[str, Share], BeforeValidator(lambda value: _floors(value))] = Field(
        {}, description="Recall of every class at least, 0..1; or of some, as {CLASS: FLOOR}, `*` being the others."
    )
    max_calibration_error: Share | None = Field(None, description="Expected calibration error at most, 0..1.")
    max_latency_ms: float | None = Field(None, gt=0, description="One image alone on one core, median, at most.")
    max_size_mb: float | None = Field(None, gt=0, description="The engine's files at most, in MB of 10⁶ bytes.")
    resamples: int = Field(4000, ge=2000, le=1_000_000, description="Of the bootstrap.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the bootstrap.")


class RegisterSection(_Section):
    """The new model as a version in the registry."""

    model: str | None = Field(None, pattern=r"^\w[\w. -]*$", description="Its name there; the pipeline's by default.")
    alias: str | None = Field(None, pattern=r"^[A-Za-z_][\w.-]*$", description="Alias that names the version at once.")
    tracking_uri: str | None = Field(None, description="Where MLflow is; by default where `tracking` says.")


class RolloutSection(_Section):
    """The canary release of the new version; the first version of a model becomes champion at once."""

    share: float = Field(10.0, gt=0, le=100, description="Requests that it answers, in percent.")
    shadow: bool = Field(False, description="It works on copies, and nobody sees its answers.")
    auto_promote: bool = Field(False, description="It becomes champion by itself once it is proven.")
    promote_after: int = Field(1000, ge=1, description="Requests to it before that.")
    sticky: Literal["request", "caller"] = Field("request", description="What is hashed to share requests out.")
    slo_ms: float = Field(200.0, gt=0, description="Latency within which 99 of 100 answers have to be.")


class PipelineFile(_Section):
    """A pipeline's file, checked; None stands for a stage that is off."""

    name: str = Field(pattern=r"^\w[\w.-]*$", max_length=100, description="Of the pipeline, its folder and its model.")
    data: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    check: CheckSection | None = Field(CheckSection(), description="Look at every file first.")
    split: SplitSection | None = Field(SplitSection(), description="Make the parts; false: the data brings them.")
    train: dict[str, Any] = Field({}, description="Settings of `lensmith train`, and `recipe`: a file under them.")
    evaluate: EvaluateSection | None = Field(EvaluateSection(), description="Report on the test part.")
    export: dict[str, Any] | None = Field({}, description="Settings of `lensmith export`; false: the plain bundle.")
    gate: GateSection | None = Field(GateSection(), description="How good it must be.")
    register_: RegisterSection | None = Field(RegisterSection(), alias="register", description="Into the registry.")
    rollout: RolloutSection | None = Field(RolloutSection(), description="To the users.")
    mapping: dict[Annotated[str, BeforeValidator(_text)], Annotated[str, BeforeValidator(_text)] | None] = Field(
        {}, description="The new model's label → the champion's, where they differ; ~: the champion does not know it."
    )
    keep: int = Field(3, ge=1, description="Results of each stage that are kept on disk.")

    @property
    def model(self) -> str:
        """Name in the registry."""
        return (self.register_ and self.register_.model) or self.name


@dataclass
class Written:
    """A pipeline's file as it was read.

    Attributes:
        source: the file.
        content: what it says, unchecked.
        checked: the same; None where its form is wrong.
        mistakes: in words, in the order of the file, each with its line where it has one.
        lines: where each value stands, 1-based.
    """

    source: Path
    content: Mapping[str, Any]
    checked: PipelineFile | None = None
    mistakes: list[tuple[int, str]] = field(default_factory=list)
    lines: Mapping[Where, int] = field(default_factory=dict)

    def add(self, said: str, *where: str) -> None:
        """Note a mistake of the value there, or of the nearest that holds it."""
        line = next((self.lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.lines), 0)
        self.mistakes.append((line, f"{said} (line {line})" if line else said))

    def require_right(self) -> PipelineFile:
        """What it says.

        Raises:
            SettingsError: all that is wrong with it.
        """
        if self.mistakes or self.checked is None:
            listed = "; ".join(dict.fromkeys(said for _, said in sorted(self.mistakes, key=lambda each: each[0])))
            raise SettingsError(
                f"A usable pipeline was expected in {self.source}.",
                f"These arrived: {listed}.",
                "Correct the file; docs/pipeline.md describes every setting. Nothing was run.",
            )
        return self.checked


def read(source: Path) -> Written:
    """Read a pipeline's file and look over its form; what it names is not looked at.

    Raises:
        SettingsError: it cannot be read as YAML, or is no mapping.
    """
    try:
        text = source.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=YamlLoader)
        content = yaml.load(text, Loader=YamlLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise SettingsError(
            f"A pipeline in YAML was expected at {source}.",
            f"{' '.join(str(error).split())}.",
            "Check the path and its syntax; docs/pipeline.md has one to begin with.",
        ) from error
    if not isinstance(content, dict) or tree is None:
        raise SettingsError(
            f"Settings of the form `name: value` were expected in {source}.",
            "Something else is there." if content is not None else "It is empty.",
            "docs/pipeline.md has one to begin with.",
        )
    content = {str(name): value for name, value in content.items()}
    written = Written(source, content)
    places: dict[Where, int] = {}
    for where, line in _places(tree):
        if where in places:
            written.mistakes.append((line, f"{'.'.join(where)} is said twice (line {line})"))
        places[where] = line
    written.lines = places
    for name in {"train", *SWITCHES} & content.keys():
        content[name] = _switch(written, name, content[name])
    if "register" in content and content["register"] is None:
        content.setdefault("rollout", None)
    try:
        written.checked = PipelineFile.model_validate(content)
    except ValidationError as error:
        for mistake in error.errors():
            _say(written, mistake)
    else:
        _contradictions(written, written.checked)
    return written


def _switch(written: Written, name: str, value: Any) -> Any:
    """`false` → None; `true` and nothing → the defaults."""
    if value is False:
        if name == "train":
            written.add("train cannot be switched off, since everything after it needs it", name)
            return {}
        return None
    return {} if value is None or value is True else value


def _say(written: Written, mistake: Any) -> None:
    where = tuple(str(part) for part in mistake["loc"] if part != "[key]")
    shown = ".".join(where)
    if mistake["type"] == "extra_forbidden":
        known = _known(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        written.add(f"{shown} is no setting" + (f", {'.'.join((*where[:-1], near[0]))} is" if near else ""), *where)
    elif mistake["type"] == "missing":
        written.add(f"{shown} is missing", *where)
    elif mistake["type"] == "string_pattern_mismatch":
        written.add(f"{shown} = {mistake['input']!r} (should be a name of letters, digits, _, . and -)", *where)
    elif mistake["type"] in ("model_type", "model_attributes_type", "dict_type") and len(where) == 1:
        written.add(f"{shown} = {mistake['input']!r} (should be settings, or false)", *where)
    elif mistake["type"] == "path_type":
        written.add(f"{shown} = {mistake['input']!r} (should be a path)", *where)
    else:
        reason = mistake["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        written.add(f"{shown} = {mistake['input']!r} (should be {reason})", *where)


def _known(where: Where) -> list[str]:
    fields = PipelineFile.model_fields
    if where:
        sections: dict[str, type[BaseModel]] = {
            "check": CheckSection, "split": SplitSection, "evaluate": EvaluateSection, "gate": GateSection,
            "register": RegisterSection, "rollout": RolloutSection,
        }  # fmt: skip
        fields = sections[where[0]].model_fields if where[0] in sections else {}
    return [each.alias or name for name, each in fields.items()]


def _contradictions(written: Written, file: PipelineFile) -> None:
    if file.rollout and not file.register_:
        written.add("rollout needs register, since only a registered version can be rolled out", "rollout")
    if file.rollout and file.register_ and file.register_.alias in ("champion", "challenger"):
        said = f"register.alias = {file.register_.alias} is what rollout decides; leave it out, or say rollout: false"
        written.add(said, "register", "alias")
    if file.split and not file.split.ratio[0] > 0:
        written.add("split.ratio leaves nothing to train on", "split", "ratio")
    gate = file.gate
    if gate and gate.champion == "none":
        compared = ("accuracy_drop", "recall_drop", "calibration_rise", "latency_ratio", "size_ratio")
        for name in compared:
            if name in gate.model_fields_set and getattr(gate, name) is not None:
                written.add(f"gate.{name} needs a champion, and gate.champion is none", "gate", name)


def _places(node: yaml.Node, above: Where = ()) -> Iterator[tuple[Where, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*above, str(key.value))
            yield where, key.start_mark.line + 1
            yield from _places(value, where)


def named_first(mistake: str) -> str:
    """The setting that a mistake of another verb's settings begins with."""
    found = re.match(r"\w+", mistake)
    return found[0] if found else ""
