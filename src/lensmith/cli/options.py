"""Settings classes → command-line options: one option a field, its help and default from the field."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from typer.main import get_command

from lensmith.config.base import Settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
"""The option that every verb with a result has."""


def command_for(
    settings: type[Settings],
    run: Callable[..., None],
    optional: tuple[str, ...] = (),
    panels: bool = True,
    **names: Any,
) -> Any:
    """A typer command whose options are the fields of `settings` and the keyword-only parameters of `run`.

    Args:
        settings: fields become options; those of `positional` become arguments.
        run: called as `run(given, **others)`, `given` holding the fields that were said on the line.
        optional: positional fields that may be left out.
        panels: draw the help in boxes.
        names: `positional` and `renamed` of `function_for`.

    Returns:
        A click command for `lensmith.cli`.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown" if panels else None)
    app.command(help=inspect.getdoc(run))(function_for(settings, run, optional, **names))
    return get_command(app)


def function_for(
    settings: type[Settings],
    run: Callable[..., None],
    optional: tuple[str, ...] = (),
    positional: tuple[str, ...] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Callable[..., None]:
    """The function behind `command_for`, for use in a group of verbs.

    Args:
        settings: see there.
        run: see there.
        optional: see there.
        positional: fields that become arguments, where a verb has others than `settings`.
        renamed: field → the name of its flag here, which says no default.
    """
    fields = settings.model_fields
    arguments_of, renamed = settings.positional if positional is None else positional, renamed or {}

    def call(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in fields}
        run({name: value for name, value in given.items() if value is not None}, **arguments)

    own = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    parameters = [
        _parameter(name, field, name in arguments_of, name in optional, renamed.get(name))
        for name, field in fields.items()
    ]
    signature = inspect.Signature([*parameters, *own])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    call.__name__ = run.__name__
    call.__doc__ = run.__doc__
    return call


def _parameter(name: str, field: FieldInfo, positional: bool, optional: bool, renamed: str | None) -> inspect.Parameter:
    written = any(isinstance(each, BeforeValidator) for each in field.metadata)  # pydantic reads it, as in 30d
    kind = str if written else _plain_type(field.annotation)
    if positional:
        info: Any = typer.Argument(help=field.description, show_default=False)
    else:
        flag = "--" + (renamed or name).replace("_", "-")
        names = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        info = typer.Option(names, help=field.description, show_default=False if renamed else _shown_default(field))
    required = positional and not optional
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind if required else kind | None, info],
    )


def _plain_type(annotation: Any) -> Any:
    """What typer should parse: choices and plain types as they are, anything else as text for pydantic."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not NoneType)
    if get_origin(annotation) is Literal or get_origin(annotation) is list or isinstance(annotation, type):
        return annotation
    return str


def _shown_default(field: FieldInfo) -> bool | str:
    if isinstance(field.default, tuple):
        return ":".join(f"{part:g}" for part in field.default)
    return False if field.is_required() or field.default is None else str(field.default)
