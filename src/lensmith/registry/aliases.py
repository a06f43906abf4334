"""Aliases of registered models: move, remove, and roll the champion back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lensmith.core.result import Result
from lensmith.errors import RegistryError
from lensmith.registry.mlflow_errors import translate_errors
from lensmith.registry.models import Version, aliases, missing_error, resolve, set_alias
from lensmith.registry.references import CHAMPION, PREVIOUS, ModelReference

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class AliasChange(Result):
    """An alias that was moved or removed.

    Attributes:
        name: the registered model's name.
        alias: the alias.
        before: version that the alias named before; None where there was no such alias.
        now: version that the alias names now; None where it was removed.
        previous: version that the alias `previous` names now; None without that alias.
    """

    name: str
    alias: str
    before: str | None
    now: str | None
    previous: str | None


def require_alias(alias: str) -> None:
    """Refuse an invalid alias.

    Raises:
        RegistryError: MLflow or `NAME@ALIAS` does not allow such an alias.
    """
    if not re.fullmatch(r"\w[\w-]{0,99}", alias) or re.fullmatch(r"[vV]?\d+|latest", alias, re.IGNORECASE):
        raise RegistryError(
            "An alias of letters, digits, dashes and underscores was expected, and not a version's number.",
            f"{alias[:120]!r} arrived.",
            f"Use {CHAMPION} for the version in service, or a word such as candidate.",
        )


def point(client: MlflowClient, version: Version, alias: str) -> AliasChange:
    """Point an alias to a version; when champion is moved, `previous` then names the last champion.

    Raises:
        RegistryError: the alias is invalid.
    """
    require_alias(alias)
    named = aliases(client, version.name)
    before, previous = named.get(alias), named.get(PREVIOUS)
    if alias == CHAMPION and before not in (None, version.version):
        set_alias(client, resolve(client, ModelReference(version.name, str(before))), PREVIOUS)
        previous = before
    if before != version.version:
        set_alias(client, version, alias)
    return AliasChange(version.name, alias, before, version.version, previous)


def remove(client: MlflowClient, name: str, alias: str) -> AliasChange:
    """Remove an alias.

    Raises:
        RegistryError: there is no such model or alias, or the alias is invalid.
    """
    require_alias(alias)
    named = aliases(client, name)
    if alias not in named:
        raise missing_error(client, ModelReference(name, alias))
    with translate_errors(str(client.tracking_uri)):
        client.delete_registered_model_alias(name, alias)
    return AliasChange(name, alias, named.pop(alias), None, named.get(PREVIOUS))


def rollback(client: MlflowClient, name: str) -> AliasChange:
    """Make the last champion champion again; the two swap, so that a second rollback undoes the first.

    Raises:
        RegistryError: there is no such model, or it had no other champion.
    """
    named = aliases(client, name)
    if PREVIOUS not in named or named[PREVIOUS] == named.get(CHAMPION):
        raise RegistryError(
            f"A previous champion of {name} was expected, under the alias {PREVIOUS}.",
            "There was none." if PREVIOUS not in named else f"{PREVIOUS} names the champion itself.",
            f"Name the version that is to serve: lensmith registry alias {name}@VERSION {CHAMPION}",
        )
    return point(client, resolve(client, ModelReference(name, named[PREVIOUS])), CHAMPION)
