"""Settings classes → command-line options: one option a field, its type, default and help from the field."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from typer.core import TyperCommand
from typer.main import get_command

from lensmith.cli.output import exit_with, print_json
from lensmith.config.base import Settings
from lensmith.core.text import is_blank

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
"""The option of every verb with a result."""

Output = Iterator[object]
"""A verb yields its result, which --json prints, and then prints it for people."""

METAVARS = {int: "INT", float: "FLOAT", Path: "PATH", list[str]: "TEXT"}
LONGEST_METAVAR = 24
"""Characters of the choices that are shown in the place of a value's name."""


class Verb(TyperCommand):
    """A command whose help lists its options in the panels of its settings, those that most people need first."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, panel by panel, in plain text."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if not getattr(param, "hidden", False):
                default = "Arguments" if param.param_type_name == "argument" else "Options"
                panel = getattr(param, "rich_help_panel", None) or default
                panels.setdefault(panel, []).append(_help_record(param))
        for panel, records in panels.items():
            if records:
                with formatter.section(panel):
                    formatter.write_dl(records)


def command_for(settings: type[Settings], run: Callable[..., Output | None], **names: Any) -> Any:
    """A command of its own for `function_for(settings, run, **names)`."""
    return make_command(function_for(settings, run, **names))


def make_command(function: Callable[..., Output | None]) -> Any:
    """A function with typer's annotations as a command of its own."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=Verb)(_with_json(function))
    return get_command(app)


def group(title: str, **functions: Callable[..., Output | None]) -> Any:
    """Functions with typer's annotations as the commands of a group, by name, below a title."""
    app = typer.Typer(help=title, add_completion=False, no_args_is_help=True, rich_markup_mode=None)
    for name, function in functions.items():
        app.command(name, cls=Verb)(_with_json(function))
    return get_command(app)


def function_for(
    settings: type[Settings],
    run: Callable[..., Output | None],
    optional: tuple[str, ...] = (),
    positional: tuple[str, ...] | None = None,
    renamed: Mapping[str, str] | None = None,
    hidden: tuple[str, ...] = (),
) -> Callable[..., None]:
    """A function whose options are the fields of `settings` and the keyword-only parameters of `run`.

    Args:
        settings: Class whose fields become options; those of its `positional` become arguments.
        run: Function that is called as `run(given, **others)`; `given` holds the fields that the command line gives.
        optional: Positional fields that may be left out.
        positional: Fields that become arguments, where a verb has others than `settings`.
        renamed: Field → name of its flag for this verb, which shows no default.
        hidden: Fields that the verb always refuses, which its help does not list.
    """
    fields, work = settings.model_fields, _with_json(run)
    arguments_of, renamed = settings.positional if positional is None else positional, renamed or {}

    @functools.wraps(work)
    def call(ctx: Any, **arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in (*fields, *settings.renamed)}
        given = {name: value for name, value in values.items() if ctx.get_parameter_source(name).name == "COMMANDLINE"}
        for old in settings.renamed.keys() & given.keys():
            new = settings.renamed[old]
            print(f"lensmith: {_flag(old)} is now called {_flag(new)}.", file=sys.stderr)
            given.setdefault(new, given.pop(old))
        work(given, **arguments)

    own = [p for p in inspect.signature(work, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    panels = {name: panel for panel, names in settings.panels.items() for name in names.split()}
    order = ["", *settings.panels]
    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, field in sorted(fields.items(), key=lambda item: order.index(panels.get(item[0], ""))):
        if name in arguments_of:
            parameters.append(_argument(name, field, name in optional))
        else:
            parameters.append(_option(name, field, renamed.get(name), panels.get(name), name in hidden))
    for old, new in settings.renamed.items():
        parameters.append(_parameter(old, kind_of(fields[new]) | None, typer.Option(_flag(old), hidden=True), None))
    return _with_parameters(call, [*parameters, *own])


def _with_json(verb: Callable[..., Output | None]) -> Callable[..., object]:
    """A verb that yields its result, with the option --json: the result is printed, and the verb goes no further.

    A `problem` of the result then decides the exit code. A verb that yields nothing is returned unchanged.
    """
    parameters = list(inspect.signature(verb, eval_str=True).parameters.values())
    if not inspect.isgeneratorfunction(verb):
        return _with_parameters(verb, parameters)

    @functools.wraps(verb)
    def run(*args: Any, as_json: bool, **arguments: Any) -> None:
        for result in verb(*args, **arguments):
            if as_json:
                print_json(result)
                if problem := getattr(result, "problem", None):
                    exit_with(problem)
                return

    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    return _with_parameters(run, [*parameters, option])


def _with_parameters(function: Any, parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """The function with the parameters that typer shall see; none of their paths may be empty."""
    for parameter in parameters:
        if get_origin(parameter.annotation) is Annotated:
            kind, *metadata = get_args(parameter.annotation)
            for info in metadata if Path in (kind, *get_args(kind)) else ():
                info.parser = _path
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function  # type: ignore[no-any-return]


def _argument(name: str, field: FieldInfo, optional: bool) -> inspect.Parameter:
    info = typer.Argument(help=field.description, show_default=False, metavar=name.upper())
    kind = kind_of(field)
    return _parameter(name, kind | None if optional else kind, info, None if optional else inspect.Parameter.empty)


def _option(name: str, field: FieldInfo, renamed: str | None, panel: str | None, hidden: bool) -> inspect.Parameter:
    kind, text = kind_of(field), field.description or ""
    metavar = METAVARS.get(kind, "TEXT")
    if get_origin(kind) is Literal:
        metavar = "|".join(map(str, get_args(kind)))
        if len(metavar) > LONGEST_METAVAR:
            text, metavar = f"{text} [{metavar.replace('|', ', ')}]", name.upper()
    flag = _flag(renamed or name)
    names = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
    info = typer.Option(
        names, help=text, metavar=metavar, rich_help_panel=panel, show_default=renamed is None, hidden=hidden
    )
    return _parameter(name, kind | None, info, _default(field))


def _parameter(name: str, kind: Any, info: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _path(text: str) -> Path:
    """The path of a text that is not empty, as an unset variable of a shell is; Path("") is the current folder."""
    if is_blank(str(text)):
        raise typer.BadParameter("A path was expected. It is empty. Leave it out, or give it a value.")
    return Path(text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def kind_of(field: FieldInfo) -> Any:
    """The type that typer parses: choices and plain types unchanged, anything else as text for pydantic."""
    annotation: Any = field.annotation
    metadata: list[Any] = field.metadata
    while True:
        if any(isinstance(each, BeforeValidator) for each in metadata):  # pydantic reads it, as in 30d
            return str
        if get_origin(annotation) in (Union, UnionType):
            annotation = next(arg for arg in get_args(annotation) if arg is not NoneType)
        elif get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
        else:
            plain = get_origin(annotation) in (Literal, list) or isinstance(annotation, type)
            return annotation if plain else str


def _default(field: FieldInfo) -> Any:
    if field.is_required():
        return None
    if isinstance(field.default, tuple):
        names = all(isinstance(part, str) for part in field.default)
        return (",".join(field.default) if names else ":".join(f"{part:g}" for part in field.default)) or None
    return field.default


def _help_record(param: Any) -> tuple[str, str]:
    """Left and right column of an option's or argument's help."""
    if param.param_type_name == "argument":
        return (param.metavar or param.name.upper()) + ("..." if param.nargs != 1 else ""), param.help or ""
    names = ", ".join(sorted(param.opts, key=len))
    if param.is_flag:
        return names if param.default is not True else f"{names} / {param.secondary_opts[0]}", param.help or ""
    default = f"{param.default:g}" if isinstance(param.default, float) else param.default
    shown = "" if default is None or not param.show_default else f" [default: {default}]"
    return f"{names} {param.metavar or 'TEXT'}", f"{param.help or ''}{shown}"
