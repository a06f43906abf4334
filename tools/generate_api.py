"""Write the settings of each verb as typed keywords into src/lensmith/api/; a test says when they are stale.

A function under `@documented(XSettings)` gets every setting of that class that it does not take otherwise.

python tools/generate_api.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from lensmith import config
from lensmith.config import values

WIDTH = 120
FOLDER = Path(__file__).parents[1] / "src/lensmith/api"

EXCLUDED = {
    "distill": {"model"},  # its `student`
    "export": {"retune"},
    "start": {"name", "tracking_uri"},  # those of the Rollout
}
"""Function → settings that it does not take."""

OWN = {"recipe", "resume", "stream", "confirm", "on_progress"}
"""Keywords that are no settings."""

ACCEPTED = {
    values.parse_duration: "float | str",
    values.parse_names: "str | Sequence[str]",
    values.parse_image_formats: "str | Sequence[str]",
    values.without_brackets: "str",
    values.parse_ratio: "str | Sequence[float]",
    values.parse_sizes: "str | int | Sequence[int]",
    values.parse_group: "str",
}
"""How pydantic reads a value before it checks it → the types that a caller may give."""

_SPECIAL = {"map": "Mapping[str, str] | Sequence[str] | str"}

Function = ast.FunctionDef


def generated(source: str) -> str:
    """The source of a module of the API with the keywords of its functions as the settings have them."""
    lines = source.split("\n")
    for function in reversed([node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]):
        settings = _settings_of(function)
        if settings is not None:
            first, last = function.lineno - 1, function.body[0].lineno - 2
            lines[first : last + 1] = _header(function, settings)
    return "\n".join(lines)


def _settings_of(function: Function) -> type[config.Settings] | None:
    for decorator in function.decorator_list:
        if found := re.fullmatch(r"documented\(config\.(\w+)\)", ast.unparse(decorator)):
            settings: type[config.Settings] = getattr(config, found[1])
            return settings
    return None


def _header(function: Function, settings: type[config.Settings]) -> list[str]:
    arguments, fields = function.args, settings.model_fields
    space = " " * function.col_offset
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(arguments.defaults)
    positional = [_written(each, value) for each, value in zip(arguments.args, defaults, strict=True)]
    own = [
        _written(each, value)
        for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if each.arg in OWN
    ]
    taken = {each.arg for each in arguments.args} | EXCLUDED.get(function.name, set())
    keywords = [_keyword(name, field) for name, field in fields.items() if name not in taken]
    assert function.returns is not None
    return [
        f"{space}def {function.name}(",
        *_packed([*positional, "*", *own], space),
        *_packed(keywords, space),
        f"{space}) -> {ast.unparse(function.returns)}:  # fmt: skip",
    ]


def _packed(parameters: list[str], space: str) -> list[str]:
    """Parameters with commas behind them, as many to a line as fit."""
    lines: list[str] = []
    for each in parameters:
        if lines and len(lines[-1]) + len(each) + 2 <= WIDTH:
            lines[-1] += f" {each},"
        else:
            lines.append(f"{space}    {each},")
    return lines


def _written(argument: ast.arg, default: ast.expr | None) -> str:
    hint = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{hint}".replace("'", '"') + (
        f" = {ast.unparse(default)}".replace("'", '"') if default else ""
    )


def _keyword(name: str, field: FieldInfo) -> str:
    kind = _SPECIAL.get(name) or _type(field)
    if field.is_required() or field.default is None:
        return f"{name}: {kind} | None = None"
    return f"{name}: {kind} = default({_literal(field.default)})"


def _type(field: FieldInfo) -> str:
    for each in field.metadata:
        if isinstance(each, BeforeValidator):
            return ACCEPTED[each.func]  # type: ignore[index]
    return " | ".join(dict.fromkeys(_names(field.annotation)))


def _names(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if annotation is NoneType:
        return []
    if origin is Literal:
        return [f"Literal[{', '.join(_literal(each) for each in get_args(annotation))}]"]
    if origin is list:
        return [f"Sequence[{_names(get_args(annotation)[0])[0]}]"]
    if isinstance(annotation, type):
        return ["StrPath" if annotation is Path else annotation.__name__]
    if hasattr(annotation, "__metadata__"):
        reads = [each.func for each in annotation.__metadata__ if isinstance(each, BeforeValidator)]
        return [ACCEPTED[reads[0]]] if reads else _names(annotation.__origin__)
    return [name for each in get_args(annotation) for name in _names(each)]


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, (str, Path)) else repr(value)


if __name__ == "__main__":
    for file in FOLDER.glob("*.py"):
        file.write_text(generated(file.read_text()))
