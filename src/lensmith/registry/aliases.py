"""Which version an alias names: moved, removed, and the champion taken back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmith.errors import RegistryError
from lensmith.registry.models import Version, aliases, remove_alias, resolve, set_alias
from lensmith.registry.references import CHAMPION, PREVIOUS, ModelReference

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class AliasChange:
    """An alias that was moved or removed.

    Attributes:
        name: of the model.
        alias: which.
        before: version that it named; None: none.
        now: version that it names; None: none.
        previous: version that the alias previous names now.
    """

    name: str
    alias: str
    before: str | None
    now: str | None
    previous: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


def require_alias(alias: str) -> None:
    """Refuse an alias that cannot be used.

    Raises:
        RegistryError: MLflow, or `NAME@ALIAS`, cannot have such an alias.
    """
    if not re.fullmatch(r"\w[\w-]{0,99}", alias) or re.fullmatch(r"[vV]?\d+|latest", alias, re.IGNORECASE):
        raise RegistryError(
            "An alias of letters, digits, dashes and underscores was expected, and no version's number.",
            f"{alias[:120]!r} arrived.",
            f"Take {CHAMPION} for the version that serves, or a word such as candidate.",
        )


def point(client: MlflowClient, version: Version, alias: str) -> AliasChange:
    """Let an alias name a version; where it is champion, `previous` names the champion before.

    Raises:
        RegistryError: as `require_alias`.
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
    """Let an alias name nothing any longer.

    Raises:
        RegistryError: no such model or alias, or as `require_alias`.
    """
    require_alias(alias)
    before = aliases(client, name).get(alias)
    remove_alias(client, name, alias)
    return AliasChange(name, alias, before, None, aliases(client, name).get(PREVIOUS))


def rollback(client: MlflowClient, name: str) -> AliasChange:
    """Make the champion before champion again; it and the champion change places, so a second one goes forth again.

    Raises:
        RegistryError: no such model, or it had no champion before.
    """
    named = aliases(client, name)
    if PREVIOUS not in named or named[PREVIOUS] == named.get(CHAMPION):
        raise RegistryError(
            f"A champion of {name} before the present one was expected, under the alias {PREVIOUS}.",
            "There was none." if PREVIOUS not in named else f"{PREVIOUS} names the champion itself.",
            f"Name the version that is to serve: lensmith registry alias {name}@VERSION {CHAMPION}",
        )
    return point(client, resolve(client, ModelReference(name, named[PREVIOUS])), CHAMPION)
