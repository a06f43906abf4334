"""Parser of a pipeline's YAML file: all mistakes are reported together, each with its line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lensmith.config.base import YamlLoader, describe_mistake, read_yaml
from lensmith.config.pipeline import OPTIONAL_STAGES, SECTIONS, PipelineFile
from lensmith.errors import LensmithError, SettingsError

KeyPath = tuple[str, ...]
"""The names that lead to a value in the file, such as ("gate", "min_recall")."""


@dataclass
class ParsedPipeline:
    """A pipeline's file as parsed, with all its mistakes.

    Attributes:
        source: path of the file.
        content: the file's content, unchecked.
        validated: the validated content; None while the schema refuses it.
        mistakes: line (1-based, 0 if unknown) and text of each mistake.
        lines: line of each value, 1-based, by its key path.
    """

    source: Path
    content: Mapping[str, Any]
    validated: PipelineFile | None = None
    mistakes: list[tuple[int, str]] = field(default_factory=list)
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def add_mistake(self, message: str, *keys: str) -> None:
        """Record a mistake with the line of the value at `keys`, or of the nearest section around it."""
        line = next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), 0)
        self.mistakes.append((line, f"{message} (line {line})" if line else message))

    @contextmanager
    def errors_as_mistakes(self, what: str, *keys: str) -> Iterator[None]:
        """Record an error that the block raises as a mistake: WHAT (REASON)."""
        try:
            yield
        except LensmithError as error:
            self.add_mistake(f"{what} ({error.arrived.rstrip('.')})", *keys)

    def require_valid(self) -> PipelineFile:
        """The validated file.

        Raises:
            SettingsError: all mistakes, in the order of the file.
        """
        if self.mistakes or self.validated is None:
            messages = dict.fromkeys(message for _, message in sorted(self.mistakes, key=lambda each: each[0]))
            raise SettingsError(
                f"A valid pipeline was expected in {self.source}.",
                f"These arrived: {'; '.join(messages)}.",
                "Correct the file; docs/pipeline.md describes every setting. Nothing was run.",
            )
        return self.validated


def parse_pipeline(source: Path) -> ParsedPipeline:
    """Parse a pipeline's file and validate its schema; data and models that it names are not looked at.

    Raises:
        SettingsError: a file that is not readable YAML, or not a mapping.
    """
    content = read_yaml(source, YamlLoader)  # keys that stand twice are mistakes among the others
    parsed = ParsedPipeline(source, content)
    lines: dict[KeyPath, int] = {}
    for keys, line in _key_lines(yaml.compose(source.read_text(encoding="utf-8"), Loader=YamlLoader)):
        if keys in lines:
            parsed.mistakes.append((line, f"{'.'.join(keys)} is set twice (line {line})"))
        lines[keys] = line
    parsed.lines = lines
    for name in {"train", *OPTIONAL_STAGES} & content.keys():
        content[name] = _section_value(parsed, name, content[name])
    if "register" in content and content["register"] is None:
        content.setdefault("rollout", None)
    try:
        parsed.validated = PipelineFile.model_validate(content)
    except ValidationError as error:
        for mistake in error.errors():
            _add_schema_mistake(parsed, mistake)
    else:
        _add_contradictions(parsed, parsed.validated)
    return parsed


def _section_value(parsed: ParsedPipeline, name: str, value: Any) -> Any:
    """`false` → None, the stage is off; `true` and an empty section → the defaults."""
    if value is False:
        if name == "train":
            parsed.add_mistake("train cannot be switched off, since all later stages need it", name)
            return {}
        return None
    return {} if value is None or value is True else value


EXPECTED = {
    "string_pattern_mismatch": "a name of letters, digits, _, . and -", "path_type": "a path",
    "model_type": "settings, or false", "model_attributes_type": "settings, or false",
    "dict_type": "settings, or false",
}  # fmt: skip
"""Pydantic's type of a mistake → the kind of value that is expected."""


def _add_schema_mistake(parsed: ParsedPipeline, mistake: ErrorDetails) -> None:
    keys = tuple(str(part) for part in mistake["loc"] if part != "[key]")
    known, expected = _setting_names(keys[:-1]), EXPECTED.get(mistake["type"], "")
    parsed.add_mistake(describe_mistake(mistake, ".".join(keys), known, expected=expected), *keys)


def _setting_names(keys: KeyPath) -> list[str]:
    schema: type[BaseModel] | None = SECTIONS.get(keys[0]) if keys else PipelineFile
    return [each.alias or name for name, each in schema.model_fields.items()] if schema else []


def _add_contradictions(parsed: ParsedPipeline, file: PipelineFile) -> None:
    if file.rollout and not file.register_:
        parsed.add_mistake("rollout needs register, since only a registered version can be rolled out", "rollout")
    if file.rollout and file.register_ and file.register_.alias in ("champion", "challenger"):
        message = f"register.alias = {file.register_.alias} is set by rollout; leave it out, or set rollout: false"
        parsed.add_mistake(message, "register", "alias")
    if file.split and not file.split.ratio[0] > 0:
        parsed.add_mistake("split.ratio leaves no images to train on", "split", "ratio")
    gate = file.gate
    if gate and gate.champion == "none":
        for name in ("accuracy_drop", "recall_drop", "calibration_rise", "latency_ratio", "size_ratio"):
            if name in gate.model_fields_set and getattr(gate, name) is not None:
                parsed.add_mistake(f"gate.{name} needs a champion, and gate.champion is none", "gate", name)


def _key_lines(node: yaml.Node | None, above: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            keys = (*above, str(key.value))
            yield keys, key.start_mark.line + 1
            yield from _key_lines(value, keys)
