"""Typed keywords: how the API distinguishes an argument that was given from one that has its default.

Each function lists the settings of its verb as keywords, written by `tools/generate_api.py`. A value that was not given
may still come from the environment, a recipe or lensmith.yaml; so a default is wrapped: `epochs: int = default(20)`.
"""

import inspect
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

from lensmith.config import Settings
from lensmith.errors import BundleError

StrPath = str | PathLike[str]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
S = TypeVar("S", bound=Settings)


class _Default:
    """A default value in a signature; `help` prints it like the value."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def default(value: T) -> T:
    """Mark a setting's default in a signature, typed as the value itself."""
    return cast(T, _Default(value))


def given(arguments: Mapping[str, Any], *without: str) -> dict[str, Any]:
    """The arguments that the caller gave, without None and defaults.

    Args:
        arguments: a function's `locals()` before its first assignment.
        without: names of arguments that are no settings.
    """
    return {
        name: value
        for name, value in arguments.items()
        if value is not None and not isinstance(value, _Default) and name not in (*without, "self")
    }


def documented(settings: type[Settings]) -> Callable[[F], F]:
    """Add the descriptions of the settings that a function takes to its docstring, whose last section is `Args`."""

    def add(function: F) -> F:
        doc = inspect.cleandoc(function.__doc__ or "")
        fields = settings.model_fields
        names = [
            name for name in inspect.signature(function).parameters if name in fields and f"    {name}: " not in doc
        ]
        lines = [f"    {name}: {fields[name].description}" for name in names]
        function.__doc__ = "\n".join([doc, *([] if "\nArgs:\n" in doc else ["", "Args:"]), *lines])
        return function

    return add


def locate(bundle: StrPath) -> Path:
    """The path of a bundle: a path unchanged, `NAME@ALIAS` and `NAME@VERSION` pulled from the registry.

    Raises:
        RegistryError: no such model, version or alias, or no bundle behind it.
        RegistryUnreachableError: the registry does not answer, and its last answer is not in the cache.
    """
    from lensmith.registry.pull import locate

    return locate(bundle)


def bundle_of(source: StrPath) -> Path:
    """The bundle of a run folder, or what `locate` finds.

    Raises:
        BundleError: a run folder that has no bundle yet.
        RegistryError: as in `locate`.
        RegistryUnreachableError: as in `locate`.
    """
    folder = Path(source)
    if not (folder / "run.json").is_file():
        return locate(source)
    if not (folder / "bundle").is_dir():
        raise BundleError(
            f"A run with a bundle was expected at {folder}.", "It has none.", f"Make it: lensmith export {folder}"
        )
    return folder / "bundle"


def located(settings: S, name: str) -> S:
    """The resolved settings with a path under `name`, the setting that names the bundle; see `locate`."""
    bundle = getattr(settings, name)
    return settings if bundle is None else settings.model_copy(update={name: locate(bundle)})
