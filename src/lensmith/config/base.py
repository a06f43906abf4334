"""Base class of all settings: where a value comes from, and validation that reports all mistakes together.

The sources of a value, in order of precedence:

    flag (or keyword)  >  LENSMITH_<VERB>_<NAME>  >  --recipe FILE, preset (train)  >  lensmith.yaml  >  default
"""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from lensmith.config import environment
from lensmith.core.text import is_blank, text_of_variable
from lensmith.errors import SettingsError

SETTINGS_FILE = "lensmith.yaml"


class Settings(BaseModel):
    """Base of every verb's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    verb: ClassVar[str]
    command: ClassVar[str] = ""
    """Words after `lensmith` where they are other than the verb."""
    positional: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[Mapping[str, str]] = {}
    """Old name of a setting, which is still read everywhere → its name."""
    panels: ClassVar[Mapping[str, str]] = {}
    """Title of a panel in the help → its settings, separated by spaces; those of no panel come first."""
    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {}
    """Message about settings that contradict each other → function of these settings that is True if they do."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: Any, known: ValidationInfo) -> Any:
        return read_text(value, cls.model_fields[str(known.field_name)])

    @field_validator("*")
    @classmethod
    def _refuse_contradictions(cls, value: Any, known: ValidationInfo) -> Any:
        # Each is checked at the last of its fields, if all of them are valid, so that pydantic collects all mistakes.
        values = {**known.data, str(known.field_name): value}
        found = []
        for message, contradicts in cls.contradictions.items():
            names = _parameters(contradicts)
            checked = known.field_name in names and values.keys() >= {*names}
            if checked and contradicts(**{name: values[name] for name in names}):
                found.append(message)
        if found:
            raise PydanticCustomError("contradiction", "; ".join(found))
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        return cls.current_names(values) if isinstance(values, dict) else values

    @classmethod
    def current_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by setting, those under an old name under the present one, which goes first where both are there."""
        old = {cls.renamed[name]: value for name, value in values.items() if name in cls.renamed}
        return {**old, **{name: value for name, value in values.items() if name not in cls.renamed}}

    @classmethod
    def layers(cls, given: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Values from all sources by precedence, not validated; see `resolve`."""
        variables = environment.values((*cls.model_fields, *cls.renamed), cls.verb)
        flags = {name: value for name, value in given.items() if value is not None}
        found: dict[str, Any] = {}
        for source in (_file_section(cls.verb), recipe or {}, variables, flags):
            found |= cls.current_names(source)
        return found

    @classmethod
    def resolve(
        cls, given: Mapping[str, Any], recipe: Mapping[str, Any] | None = None, others: Sequence[str] = ()
    ) -> Self:
        """Combine the values of all sources and validate them.

        Args:
            given: values of flags or keywords by name; None means not given.
            recipe: content of a recipe file, with precedence between the environment and lensmith.yaml.
            others: mistakes from other checks, reported together with those of the settings.

        Raises:
            SettingsError: all mistakes in one paragraph.
        """
        cause, found = None, [*others, *environment.mistakes(_settings_of_verbs(), cls.verb)]
        try:
            made = cls.model_validate(cls.layers(given, recipe))
        except ValidationError as error:
            cause, found = error, [*_mistakes(cls, error), *found]
        if not found:
            return made
        raise SettingsError(
            f"Usable settings were expected for `lensmith {cls.command or cls.verb}`.",
            f"These arrived: {'; '.join(found)}.",
            "Correct them where they were given: flag, environment, recipe or lensmith.yaml.",
        ) from cause


class YamlLoader(yaml.SafeLoader):
    """YAML loader that reads 5:3:2 as text, as YAML 1.2 does, not as the sexagesimal number 18182."""


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
YamlLoader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)\Z"), list("-+0123456789")
)
YamlLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)\Z", re.IGNORECASE
    ),
    list("-+0123456789."),
)


class UniqueKeyLoader(YamlLoader):
    """YAML loader to which a key that stands twice in a mapping is an error; PyYAML would use the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See PyYAML."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"found {key.value!r} twice", key.start_mark)
        return super().construct_mapping(node, deep)


class _SettingsLoader(UniqueKeyLoader):
    """YAML loader that reads `name:` without a value as empty text, which is refused, not as null."""


_SettingsLoader.yaml_implicit_resolvers = {
    first: resolvers for first, resolvers in YamlLoader.yaml_implicit_resolvers.items() if first
}


def read_yaml(path: Path, loader: type[YamlLoader] = UniqueKeyLoader) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        SettingsError: a file that cannot be read, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            f"A readable YAML file was expected at {path}.",
            f"{' '.join(str(error).split())}.",
            "Check the path and its syntax.",
        ) from error
    if not isinstance({} if content is None else content, dict):
        raise SettingsError(
            f"Settings of the form `name: value` were expected in {path}.",
            "Something else is there.",
            "See docs/settings.md.",
        )
    return {str(name): value for name, value in (content or {}).items()}


def read_text(value: Any, field: FieldInfo) -> Any:
    """A setting's value before pydantic reads it, with `~` at the beginning of a path as the home folder.

    An empty value is what an unset variable of a shell or a Compose file becomes. It must not mean a folder (the
    current one), an address (all of them) or the absence of a check. YAML's yes, no, on and off must not mean 1 or 0.

    Raises:
        PydanticCustomError: text without a visible character, or a list with such text.
        ValueError: a bool for something else.
    """
    kinds = str(field.annotation)
    if isinstance(value, bool) and "'off'" in kinds:  # a choice of auto, on and off
        value = "on" if value else "off"
    if isinstance(value, bool) and not re.search(r"\b(bool|Any)\b|Literal\[[^]]*(True|False)", kinds):
        raise ValueError("something else than yes or no")
    if isinstance(value, str) and value.startswith("~") and "Path" in kinds:
        value = os.path.expanduser(value)  # noqa: PTH111 - where no shell has done it; an unknown user stays
    texts = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(text, str) and is_blank(text) for text in texts):
        raise PydanticCustomError("empty", "empty")
    return value


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _settings_of_verbs() -> dict[str, list[str]]:
    """Verb → the names of its settings, old ones included."""
    found: dict[str, list[str]] = {}
    for cls in Settings.__subclasses__():
        found.setdefault(cls.verb, []).extend((*cls.model_fields, *cls.renamed))
    return found


def _file_section(verb: str) -> dict[str, Any]:
    named = text_of_variable("LENSMITH_CONFIG", "The path of a settings file")
    path = Path(named or SETTINGS_FILE)
    if not named and not os.path.lexists(path):
        if (other := path.with_suffix(".yml")).exists():
            raise SettingsError(f"Settings were expected in {path}.", f"{other} is there.", f"Rename it to {path}.")
        return {}
    content, known = read_yaml(path, _SettingsLoader), _settings_of_verbs()
    if unknown := [section for section in content if section not in known]:
        near = [difflib.get_close_matches(section, known, n=1) for section in unknown]
        raise SettingsError(
            f"Sections with the names of verbs were expected in {path}: {', '.join(sorted(known))}.",
            f"These are there: {', '.join(map(repr, unknown))}.",
            "Rename " + " and ".join(f"{a!r} to {b[0]!r}" for a, b in zip(unknown, near, strict=True) if b) + "."
            if any(near)
            else "Remove them, or move their settings into the section of their verb.",
        )
    section = {} if content.get(verb) in (None, "") else content[verb]
    if not isinstance(section, dict):
        raise SettingsError(
            f"Settings of the form `name: value` were expected under {verb} in {path}.",
            f"{section!r} is there.",
            "See docs/settings.md.",
        )
    return section


def _mistakes(cls: type[Settings], error: ValidationError) -> list[str]:
    names = [str(mistake["loc"][0]) if mistake["loc"] else "" for mistake in error.errors()]
    return [
        describe_mistake(mistake, name, list(cls.model_fields), f" of {cls.verb}")
        for name, mistake in zip(names, error.errors(), strict=True)
    ]


def describe_mistake(mistake: ErrorDetails, name: str, known: Sequence[str], of: str = "", expected: str = "") -> str:
    """A mistake that pydantic found, in words.

    Args:
        mistake: one of pydantic's errors.
        name: name of the setting, with its section if it has one, as gate.strict.
        known: names of all settings of the section, of which the nearest is suggested for an unknown one.
        of: further words on where unknown settings do not exist.
        expected: expected kind of value; pydantic's words by default.
    """
    if mistake["type"] == "extra_forbidden":
        section, dot, last = name.rpartition(".")
        near = difflib.get_close_matches(last.lower(), known, n=1)
        return f"{name} is no setting{of}" + (f", {section}{dot}{near[0]} is" if near else "")
    if mistake["type"] == "missing":
        return f"{name} is missing"
    if mistake["type"] == "contradiction":
        return mistake["msg"]
    if mistake["type"] == "empty":
        return f"{name} is empty (unset it, or give it a value)"
    if mistake["type"] == "string_pattern_mismatch":
        expected = expected or f"text of the form {mistake['ctx']['pattern']}"
    if mistake["type"] == "path_type":
        expected = expected or "a path"
    expected = expected or mistake["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{name} = {mistake['input']!r} (should be {expected})"
