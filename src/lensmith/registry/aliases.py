"""Which version an alias names: moved, removed, and the champion taken back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmith.errors import RegistryError, RolloutError
from lensmith.registry.models import Version, aliases, names, remove_alias, resolve, set_alias
from lensmith.registry.names import CHALLENGER, CHAMPION, PREVIOUS, Name
from lensmith.registry.rollouts import Ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Moved:
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


def require_alias(client: MlflowClient, name: str, alias: str) -> None:
    """Refuse an alias that cannot be used, or not now.

    Args:
        client: of the registry.
        name: of a model, which need not be there yet.
        alias: to be moved.

    Raises:
        RegistryError: MLflow, or `NAME@ALIAS`, cannot have such an alias.
        RolloutError: it takes part in a gray release that is under way.
    """
    if not re.fullmatch(r"\w[\w-]{0,99}", alias) or re.fullmatch(r"[vV]?\d+|latest", alias, re.IGNORECASE):
        raise RegistryError(
            "An alias of letters, digits, dashes and underscores was expected, and no version's number.",
            f"{alias[:120]!r} arrived.",
            f"Take {CHAMPION} for the version that serves, or a word such as candidate.",
        )
    if alias not in (CHAMPION, CHALLENGER, PREVIOUS) or name not in names(client):
        return
    ledger = Ledger.open(client, name, create=False)
    state = ledger.latest() if ledger else None
    if state is not None and state.under_way:
        rollout = state.rollout
        raise RolloutError(
            f"No gray release of {name} was expected to be under way while {alias} is moved.",
            f"{rollout.id} is: version {rollout.challenger} beside {rollout.champion}.",
            f"End it first: lensmith rollout promote {name}, or lensmith rollout abort {name}",
        )


def point(client: MlflowClient, version: Version, alias: str) -> Moved:
    """Let an alias name a version; where it is champion, `previous` names the champion before.

    Raises:
        RegistryError, RolloutError: as `require_alias`.
    """
    require_alias(client, version.name, alias)
    named = aliases(client, version.name)
    before, previous = named.get(alias), named.get(PREVIOUS)
    if alias == CHAMPION and before not in (None, version.version):
        set_alias(client, resolve(client, Name(version.name, str(before))), PREVIOUS)
        previous = before
    if before != version.version:
        set_alias(client, version, alias)
    return Moved(version.name, alias, before, version.version, previous)


def remove(client: MlflowClient, name: str, alias: str) -> Moved:
    """Let an alias name nothing any longer.

    Raises:
        RegistryError, RolloutError: no such model or alias, or as `require_alias`.
    """
    require_alias(client, name, alias)
    before = aliases(client, name).get(alias)
    remove_alias(client, name, alias)
    return Moved(name, alias, before, None, aliases(client, name).get(PREVIOUS))


def rollback(client: MlflowClient, name: str) -> Moved:
    """Make the champion before champion again; it and the champion change places, so a second one goes forth again.

    Raises:
        RegistryError: no such model, or it had no champion before.
        RolloutError: a gray release is under way.
    """
    require_alias(client, name, CHAMPION)
    named = aliases(client, name)
    if PREVIOUS not in named or named[PREVIOUS] == named.get(CHAMPION):
        raise RegistryError(
            f"A champion of {name} before the present one was expected, under the alias {PREVIOUS}.",
            "There was none." if PREVIOUS not in named else f"{PREVIOUS} names the champion itself.",
            f"Name the version that is to serve: lensmith registry alias {name}@VERSION {CHAMPION}",
        )
    return point(client, resolve(client, Name(name, named[PREVIOUS])), CHAMPION)
