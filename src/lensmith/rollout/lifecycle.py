"""Rollout lifecycle: a canary release begun by a person, and ended by a promotion or an abort."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from lensmith.bundle.format import Bundle
from lensmith.config import RolloutSettings
from lensmith.core.labels import matched_label
from lensmith.core.text import listed
from lensmith.errors import ObjectionError, RegistryError, RolloutError
from lensmith.registry.client import client as connect
from lensmith.registry.client import uri
from lensmith.registry.models import Version, champion_of, names, resolve, set_alias
from lensmith.registry.pull import pull
from lensmith.registry.references import CHALLENGER, CHAMPION, PREVIOUS, ModelReference
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.ledger import Ledger, LedgerEntry, under_way_error
from lensmith.rollout.state import CanaryRelease, Decision
from lensmith.rollout.status import seen_by_replica, total

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LISTED = 8


def start(settings: RolloutSettings) -> CanaryRelease:
    """Begin a rollout; the services that follow the model see it at their next poll.

    Both bundles are pulled and verified first. Nothing is left where it fails.

    Raises:
        RegistryError: no such model, version or alias, or no bundle behind it.
        RolloutError: the version is the champion, its labels differ, or a rollout is under way.
    """
    client = connect(uri(settings.tracking_uri), create=False)
    champion, challenger = _champion_and_challenger(client, settings)
    if (entry := _latest(client, settings.name)[1]) is not None and entry.under_way:  # before bundles are pulled
        raise under_way_error(entry.rollout)
    champions, challengers = (Bundle.load(pull(client, version)).labels for version in (champion, challenger))
    mapping = spelled_mapping(settings.mapping, champions, challengers)
    _require_same_labels(champions, challengers, mapping)
    ledger = Ledger.open(client, settings.name)
    # The ledger defines what is under way, the alias only shows it to people, so a crash in between does no harm.
    chosen = settings.model_dump(include=set(CanaryRelease.model_fields))
    versions = {"champion": champion.version, "challenger": challenger.version}
    begun = ledger.begin(CanaryRelease(id="", by=_person(), mapping=mapping, **versions, **chosen))
    set_alias(client, challenger, CHALLENGER)
    return begun


def end(
    name: str,
    outcome: Literal["promoted", "aborted"],
    reason: str = "",
    tracking_uri: str | None = None,
    force: bool = False,
) -> tuple[CanaryRelease, Decision]:
    """End the rollout that is under way by a person's decision, and move the aliases accordingly.

    Args:
        name: the registered model's name.
        outcome: what ends it.
        reason: why, for the audit trail.
        tracking_uri: the registry; None: as configured.
        force: whether to promote although the guards object.

    Raises:
        RegistryError: there is no such model.
        ObjectionError: the guards object to the promotion, and `force` is off.
        RolloutError: none is under way, or a replica decided otherwise at the same moment.
    """
    client = connect(uri(tracking_uri), create=False)
    champion = champion_of(client, name)
    ledger, entry = _latest(client, name)
    if ledger is None or entry is None or not entry.under_way:
        raise RolloutError(
            f"A canary release of {name} was expected to be under way.",
            f"The latest, {entry.rollout.id}, was {_outcome(entry.decision)}."
            if entry and entry.decision
            else "There has been none.",
            f"Begin one with: lensmith rollout start {name} --version V",
        )
    rollout = entry.rollout
    if outcome == "promoted" and (champion is None or champion.version != rollout.champion):
        raise RolloutError(
            f"Version {rollout.champion} was expected to be the champion of {name}, as when the rollout began.",
            f"It is {f'version {champion.version}' if champion else 'none'} by now.",
            f"End it with: lensmith rollout abort {name}",
        )
    counted = total(entry)
    figures = RolloutGuards(rollout).assess(counted.champion, counted.challenger).figures
    figures = {**figures, **seen_by_replica(entry)}
    stopped = f"{counted.stop.guard}: {counted.stop.reason}" if counted.stop else ""
    objection = (stopped or str(figures["objection"])) if outcome == "promoted" else ""
    if objection and not force:
        raise ObjectionError(
            f"Guards that have nothing against version {rollout.challenger} of {name} were expected.",
            f"They object to its promotion: {objection}",
            f"Wait (lensmith rollout status {name} --watch), end the rollout (lensmith rollout abort {name}), or "
            "promote it all the same with --force.",
        )
    wanted = Decision(
        outcome=outcome,
        guard="forced" if objection else "person",
        reason=reason or f"{_person()} {outcome} it{f', although: {objection}' if objection else '.'}",
        by=_person(),
        figures=figures,
    )
    decision = ledger.decide(entry.n, wanted)
    ledger.apply(entry)
    if decision.outcome != outcome:
        raise RolloutError(
            f"The rollout {rollout.id} was expected to be {outcome}.",
            f"At the same moment it was {_outcome(decision)}.",
            "That decision is final; begin another rollout if it was wrong.",
        )
    return rollout, decision


def require_not_under_way(client: MlflowClient, name: str, alias: str) -> None:
    """Refuse to move an alias that belongs to a rollout that is under way; the model need not exist yet.

    Raises:
        RolloutError: a rollout that moves this alias is under way.
    """
    if alias not in (CHAMPION, CHALLENGER, PREVIOUS) or name not in names(client):
        return
    entry = _latest(client, name)[1]
    if entry is not None and entry.under_way:
        raise under_way_error(entry.rollout, f" while {alias} is moved")


def _latest(client: MlflowClient, name: str) -> tuple[Ledger | None, LedgerEntry | None]:
    ledger = Ledger.find(client, name)
    return ledger, ledger.latest() if ledger else None


def _champion_and_challenger(client: MlflowClient, settings: RolloutSettings) -> tuple[Version, Version]:
    challenger = resolve(client, ModelReference(settings.name, settings.version))
    champion = champion_of(client, settings.name)
    if champion is None:
        raise RegistryError(
            f"A champion of {settings.name} was expected, with which version {settings.version} is compared.",
            "The alias champion names no version.",
            f"Set it first: lensmith registry alias {settings.name}@VERSION champion",
        )
    if champion.version == challenger.version:
        raise RolloutError(
            "Another version than the champion was expected as its challenger.",
            f"Version {challenger.version} of {settings.name} is the champion.",
            f"List the versions with: lensmith registry show {settings.name}",
        )
    return champion, challenger


def spelled_mapping(mapping: Mapping[str, str], champion: Sequence[str], challenger: Sequence[str]) -> dict[str, str]:
    """A mapping with the labels as the bundles spell them, and with those that differ in what nobody sees."""
    spelled = {
        matched_label(new, challenger) or new: old and (matched_label(old, champion) or old)
        for new, old in mapping.items()
    }
    for label in challenger:
        if label not in champion and label not in spelled and (same := matched_label(label, champion)):
            spelled[label] = same
    return spelled


def _require_same_labels(champion: Sequence[str], challenger: Sequence[str], mapping: Mapping[str, str]) -> None:
    """Refuse a challenger with a label that the champion lacks, by name or by the mapping, or the other way round."""
    wrong = []
    if unknown := [label for label in mapping if label not in challenger]:
        wrong.append(f"mapped, but no label of the challenger: {listed(unknown, _LISTED)}")
    if unknown := [label for label in mapping.values() if label and label not in champion]:
        wrong.append(f"mapped to, but no label of the champion: {listed(unknown, _LISTED)}")
    answers = {mapping.get(label, label) for label in challenger}
    if new := [label for label in challenger if mapping.get(label, label) not in {*champion, ""}]:
        wrong.append(f"only the challenger has {listed(new, _LISTED)}")
    if missing := [label for label in champion if label not in answers]:
        wrong.append(f"only the champion has {listed(missing, _LISTED)}")
    if wrong:
        raise RolloutError(
            "A challenger with the champion's labels was expected.",
            f"They differ: {'; '.join(wrong)}.",
            "Map those that mean the same with --map CHALLENGER=CHAMPION and new ones with --map CHALLENGER=, or train "
            "with the same classes.",
        )


def _outcome(decision: Decision) -> str:
    return f"{decision.outcome.replace('_', ' ')} at {decision.at:%Y-%m-%d %H:%M} UTC by {decision.by}"


def _person() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, as in some containers
        return socket.gethostname()
