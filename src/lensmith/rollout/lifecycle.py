"""A canary release begun and ended by a person."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from lensmith.bundle.format import Bundle
from lensmith.config import RolloutSettings
from lensmith.errors import RegistryError, RolloutError
from lensmith.registry.client import client as connect
from lensmith.registry.client import uri
from lensmith.registry.models import Version, champion_of, names, resolve, set_alias
from lensmith.registry.pull import pull
from lensmith.registry.references import CHALLENGER, CHAMPION, PREVIOUS, ModelReference
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.state import CanaryRelease, Decision
from lensmith.rollout.status import total

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LISTED = 8


def start(settings: RolloutSettings) -> CanaryRelease:
    """Let a version be tried beside the champion; the services that follow it see it the next time they look.

    Both bundles are pulled and verified first. Nothing is left where it fails.

    Raises:
        RegistryError: no such model, version or alias, or no bundle behind it.
        RolloutError: it is the champion itself, its labels are others, or a release is under way.
    """
    client = connect(uri(settings.tracking_uri), create=False)
    champion, challenger = _both(client, settings)
    ledger = Ledger.open(client, settings.name, create=False)
    if ledger is not None:  # said before bundles are fetched; `begin` makes sure
        _require_ended(ledger.latest())
    _compare_labels(
        Bundle.load(pull(client, champion)).labels, Bundle.load(pull(client, challenger)).labels, settings.mapping
    )
    ledger = Ledger.open(client, settings.name, create=True)
    assert ledger is not None
    # The ledger says what is under way, the alias only names it for people: so a death in between harms nothing.
    begun = ledger.begin(
        CanaryRelease(
            id="",
            name=settings.name,
            champion=champion.version,
            challenger=challenger.version,
            share=settings.share,
            shadow=settings.shadow,
            auto_promote=settings.auto_promote,
            promote_after=settings.promote_after,
            sticky=settings.sticky,
            slo_ms=settings.slo_ms,
            mapping=settings.mapping,
            by=_who(),
        )
    )
    set_alias(client, challenger, CHALLENGER)
    return begun


def end(
    name: str, outcome: Literal["promoted", "aborted"], reason: str = "", tracking_uri: str | None = None
) -> tuple[CanaryRelease, Decision]:
    """End the release that is under way, as a person wants it; with it the aliases move.

    Returns:
        The release, and the decision that stands.

    Raises:
        RegistryError: no such model.
        RolloutError: none is under way, or it was decided otherwise at the same moment.
    """
    client = connect(uri(tracking_uri), create=False)
    champion = champion_of(client, name)
    ledger = Ledger.open(client, name, create=False)
    state = ledger.latest() if ledger else None
    if ledger is None or state is None or not state.under_way:
        raise RolloutError(
            f"A canary release of {name} was expected to be under way.",
            _last_said(state),
            f"Begin one with: lensmith rollout start {name} --version V",
        )
    rollout = state.rollout
    if outcome == "promoted" and (champion is None or champion.version != rollout.champion):
        raise RolloutError(
            f"Version {rollout.champion} was expected to be the champion of {name}, as when the release began.",
            f"It is {f'version {champion.version}' if champion else 'none'} by now.",
            f"End it with: lensmith rollout abort {name}",
        )
    counted = total(state)
    wanted = Decision(
        outcome=outcome,
        guard="person",
        reason=reason or f"{_who()} {outcome} it.",
        by=_who(),
        figures=RolloutGuards(rollout).look(counted.champion, counted.challenger).figures,
    )
    decision = ledger.decide(state.n, wanted)
    ledger.apply(state)
    if decision.outcome != outcome:
        raise RolloutError(
            f"The release {rollout.id} was expected to be {outcome}.",
            f"At the same moment it was {_said(decision)}.",
            "That decision stands; begin another release if it was wrong.",
        )
    return rollout, decision


def require_not_under_way(client: MlflowClient, name: str, alias: str) -> None:
    """Refuse an alias that a canary release moves now.

    Args:
        client: of the registry.
        name: of a model, which need not be there yet.
        alias: to be moved.

    Raises:
        RolloutError: it takes part in a canary release that is under way.
    """
    if alias not in (CHAMPION, CHALLENGER, PREVIOUS) or name not in names(client):
        return
    ledger = Ledger.open(client, name, create=False)
    state = ledger.latest() if ledger else None
    if state is not None and state.under_way:
        rollout = state.rollout
        raise RolloutError(
            f"No canary release of {name} was expected to be under way while {alias} is moved.",
            f"{rollout.id} is: version {rollout.challenger} beside {rollout.champion}.",
            f"End it first: lensmith rollout promote {name}, or lensmith rollout abort {name}",
        )


def _both(client: MlflowClient, settings: RolloutSettings) -> tuple[Version, Version]:
    challenger = resolve(client, ModelReference(settings.name, settings.version))
    champion = champion_of(client, settings.name)
    if champion is None:
        raise RegistryError(
            f"A champion of {settings.name} was expected, beside which version {settings.version} is tried.",
            "The alias champion names no version.",
            f"Set it first: lensmith registry alias {settings.name}@VERSION champion",
        )
    if champion.version == challenger.version:
        raise RolloutError(
            "Another version than the champion was expected as its challenger.",
            f"Version {challenger.version} of {settings.name} is the champion.",
            f"See what there is with: lensmith registry show {settings.name}",
        )
    return champion, challenger


def _require_ended(state: LedgerEntry | None) -> None:
    if state is not None and state.under_way:
        going = state.rollout
        raise RolloutError(
            f"No canary release of {going.name} was expected to be under way.",
            f"{going.id} tries version {going.challenger} since {going.started:%Y-%m-%d %H:%M} UTC.",
            f"Wait for it, or end it with: lensmith rollout abort {going.name}",
        )


def _compare_labels(champion: Sequence[str], challenger: Sequence[str], mapping: Mapping[str, str]) -> None:
    """Every label of either has to be known to the other: by its name, or mapped."""
    wrong = []
    if unknown := [label for label in mapping if label not in challenger]:
        wrong.append(f"mapped, but no label of the challenger: {_listed(unknown)}")
    if unknown := [label for label in mapping.values() if label and label not in champion]:
        wrong.append(f"mapped to, but no label of the champion: {_listed(unknown)}")
    answers = {mapping.get(label, label) for label in challenger}
    if new := [label for label in challenger if mapping.get(label, label) not in {*champion, ""}]:
        wrong.append(f"only the challenger knows {_listed(new)}")
    if missing := [label for label in champion if label not in answers]:
        wrong.append(f"only the champion knows {_listed(missing)}")
    if wrong:
        raise RolloutError(
            "A challenger with the champion's labels was expected.",
            f"They differ: {'; '.join(wrong)}.",
            "Map those that mean the same with --map CHALLENGER=CHAMPION and new ones with --map CHALLENGER=, or train "
            "with the same classes.",
        )


def _last_said(state: LedgerEntry | None) -> str:
    if state is None or state.decision is None:
        return "There has been none."
    return f"The latest, {state.rollout.id}, was {_said(state.decision)}."


def _said(decision: Decision) -> str:
    return f"{decision.outcome.replace('_', ' ')} at {decision.at:%Y-%m-%d %H:%M} UTC by {decision.by}"


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, as in some containers
        return socket.gethostname()


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return f"{', '.join(labels[:_LISTED])}{more}"
