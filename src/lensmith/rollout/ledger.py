"""Rollout ledger: one MLflow run for each registered model, which all replicas read and write.

    param rollout.N                    the rollout; a param is written once, so the first to claim a number has it
    param rollout.N.decision           the decision that ended it; the first one is final
    tag   rollout.N.counts.REPLICA     one replica's report
    tag   rollout.N.applied            set once the aliases were moved by the decision

The registered model's tag `lensmith.rollouts` holds the run's id. All operations may run in several replicas at once.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import ValidationError

from lensmith.core.text import first_line
from lensmith.errors import RegistryError, RolloutError
from lensmith.registry.mlflow_errors import translate_errors
from lensmith.registry.references import CHALLENGER, CHAMPION, PREVIOUS
from lensmith.rollout.ledger_run import create_run, find_run, retry_once, write_once
from lensmith.rollout.report import SEEN
from lensmith.rollout.state import CanaryRelease, Decision

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARAM_CHARACTERS, TAG_CHARACTERS = 6000, 8000
"""MLflow's limits; it truncates longer values silently, which would leave broken JSON."""

_PACKED = "zlib:"
_COUNTS_TAG = re.compile(r"rollout\.(\d+)\.counts\.(.+)")
_Written = TypeVar("_Written", CanaryRelease, Decision)


@dataclass(frozen=True)
class LedgerEntry:
    """One rollout in the ledger.

    Attributes:
        n: number of the rollout, from 1 on.
        rollout: the rollout as it was begun.
        decision: the decision that ended it; None while it is under way.
        applied: True once the aliases were moved by that decision.
        reports: replica → its last report; an empty report where it cannot be read.
    """

    n: int
    rollout: CanaryRelease
    decision: Decision | None = None
    applied: bool = False
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def under_way(self) -> bool:
        """Whether the rollout has begun and is not decided."""
        return self.decision is None


class Ledger:
    """All rollouts of one registered model; made by `find` or `open`.

    Every method raises RegistryError where MLflow refuses or does not answer.
    """

    def __init__(self, client: MlflowClient, name: str, run: str) -> None:
        self.client = client
        self.name = name
        self.run = run

    @classmethod
    def find(cls, client: MlflowClient, name: str) -> Self | None:
        """A model's ledger; None where there is none yet.

        Raises:
            RegistryError: there is no such model.
        """
        with translate_errors(str(client.tracking_uri)):
            run = find_run(client, name)
        return cls(client, name, run) if run else None

    @classmethod
    def open(cls, client: MlflowClient, name: str) -> Self:
        """A model's ledger, created where there is none yet; raises as `find` does."""
        with translate_errors(str(client.tracking_uri)):
            return cls.find(client, name) or cls(client, name, create_run(client, name))

    def latest(self) -> LedgerEntry | None:
        """The entry of the rollout that was begun last; None before the first. Takes one request."""
        entries = self.history()
        return entries[-1] if entries else None

    def history(self) -> list[LedgerEntry]:
        """All entries, oldest first; old reports have been removed, their figures are in the decisions."""
        with translate_errors(str(self.client.tracking_uri)):
            data = self.client.get_run(self.run).data
        reports: dict[int, dict[str, Mapping[str, Any]]] = {}
        for key, value in data.tags.items():
            if found := _COUNTS_TAG.fullmatch(key):
                reports.setdefault(int(found[1]), {})[found[2]] = _unpacked(value)
        entries = []
        for n in sorted(int(found[1]) for key in data.params if (found := re.fullmatch(r"rollout\.(\d+)", key))):
            key = f"rollout.{n}"
            decided = data.params.get(f"{key}.decision")
            entries.append(
                LedgerEntry(
                    n,
                    _parse(CanaryRelease, data.params[key], key),
                    _parse(Decision, decided, f"{key}.decision") if decided else None,
                    f"{key}.applied" in data.tags,
                    reports.get(n, {}),
                )
            )
        return entries

    def begin(self, rollout: CanaryRelease) -> CanaryRelease:
        """Add a rollout under the next number; it is returned with an id made of the model's name and the number.

        Raises:
            RolloutError: one is under way, another was begun at the same moment, or the mapping of labels is too long
                for MLflow.
        """
        last = self.latest()
        if last is not None:
            if last.under_way:
                raise under_way_error(last.rollout)
            self.apply(last)
        n = last.n + 1 if last else 1
        begun = rollout.model_copy(update={"id": f"{self.name}-{n}"})
        text = begun.model_dump_json()
        if len(text) > PARAM_CHARACTERS:
            raise RolloutError(
                f"A canary release of at most {PARAM_CHARACTERS:,} characters in MLflow was expected.",
                f"This one takes {len(text):,}, {len(begun.mapping):,} mapped labels among them.",
                "Train the challenger with the champion's labels, so that no mapping is needed.",
            )
        written = write_once(self.client, self.run, f"rollout.{n}", text)
        if written != text:
            raise under_way_error(CanaryRelease.model_validate_json(written))
        with translate_errors(str(self.client.tracking_uri)):
            # The reports of old rollouts would be transferred at every read.
            for key in self.client.get_run(self.run).data.tags:
                if (found := _COUNTS_TAG.fullmatch(key)) and int(found[1]) < n - 1:
                    self.client.delete_tag(self.run, key)
        return begun

    def decide(self, n: int, decision: Decision) -> Decision:
        """End rollout `n` unless it is decided already; the decision in the ledger may be another replica's."""
        key = f"rollout.{n}.decision"
        return _parse(Decision, write_once(self.client, self.run, key, _shortened(decision)), key)

    def report(self, n: int, replica: str, report: Mapping[str, Any]) -> None:
        """Replace the report that a replica, by a name that stays the same after restarts, has written on rollout `n`.

        Raises:
            RegistryError: the report is too long for MLflow, even compressed.
        """
        text = _packed(report)
        if len(text) > TAG_CHARACTERS:  # the counts matter more than what was made of them
            text = _packed({key: value for key, value in report.items() if key != SEEN})
        if len(text) > TAG_CHARACTERS:
            raise RegistryError(
                f"A report of at most {TAG_CHARACTERS:,} characters was expected.",
                f"That of {replica} has {len(text):,}, compressed.",
                "Promote or abort the rollout: its counts have become too many for MLflow.",
            )
        with translate_errors(str(self.client.tracking_uri)):
            allowed = re.sub(r"[^\w.-]", "_", replica)[:200] or "_"  # in a key
            self.client.set_tag(self.run, f"rollout.{n}.counts.{allowed}", text)

    def apply(self, entry: LedgerEntry) -> None:
        """Move the aliases by a rollout's decision; once, so that aliases that people set later stay.

        After a promotion `previous` names the old champion and `champion` the challenger. In any case the alias
        `challenger` is removed where it names the challenger. Every step can be repeated, so that another replica
        completes what one that crashed has begun.
        """
        current = next((each for each in self.history() if each.n == entry.n), entry)
        rollout, decision = current.rollout, current.decision
        if decision is None or current.applied:
            return
        with translate_errors(str(self.client.tracking_uri)):
            if decision.outcome == "promoted":
                self._set_alias(PREVIOUS, rollout.champion)
                self._set_alias(CHAMPION, rollout.challenger)
            aliases = self.client.get_registered_model(self.name).aliases
            if str(aliases.get(CHALLENGER, "")) == rollout.challenger:
                retry_once(lambda: self.client.delete_registered_model_alias(self.name, CHALLENGER))
            retry_once(lambda: self.client.set_tag(self.run, f"rollout.{current.n}.applied", decision.outcome))

    def _set_alias(self, alias: str, version: str) -> None:
        retry_once(lambda: self.client.set_registered_model_alias(self.name, alias, version))


def under_way_error(rollout: CanaryRelease, moment: str = "") -> RolloutError:
    """The error about a rollout that is under way, at a moment such as ` while champion is moved`."""
    return RolloutError(
        f"No canary release of {rollout.name} was expected to be under way{moment}.",
        f"{rollout.id} is: version {rollout.challenger} beside {rollout.champion}, since "
        f"{rollout.started:%Y-%m-%d %H:%M} UTC.",
        f"End it first: lensmith rollout promote {rollout.name}, or lensmith rollout abort {rollout.name}",
    )


def _shortened(decision: Decision) -> str:
    """A decision as JSON that is not too long for MLflow: without figures, then with shortened texts."""
    text = decision.model_dump_json()
    if len(text) > PARAM_CHARACTERS:
        text = decision.model_copy(update={"figures": {"left_out": "too long for the registry"}}).model_dump_json()
    if len(text) > PARAM_CHARACTERS:
        texts = {name: getattr(decision, name) for name in ("guard", "reason", "by")}
        cut = {name: f"{value[:400]}…" for name, value in texts.items() if len(value) > 400}
        text = decision.model_copy(update={**cut, "figures": {}}).model_dump_json()
    return text


def _packed(report: Mapping[str, Any]) -> str:
    """A report as JSON, compressed where it would be too long for a tag."""
    text = json.dumps(report, separators=(",", ":"))
    if len(text) > TAG_CHARACTERS:
        text = _PACKED + base64.b85encode(zlib.compress(text.encode(), 9)).decode()
    return text


def _unpacked(text: str) -> Mapping[str, Any]:
    """A report from its tag; empty where it is garbled, which must not prevent a rollback."""
    try:
        if text.startswith(_PACKED):
            text = zlib.decompress(base64.b85decode(text.removeprefix(_PACKED))).decode()
        found = json.loads(text)
    except (ValueError, zlib.error):
        return {}
    return found if isinstance(found, dict) else {}


def _parse(kind: type[_Written], text: str, key: str) -> _Written:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise RegistryError(
            f"An entry that lensmith wrote was expected in the ledger's {key}.",
            f"It cannot be read ({first_line(error)}).",
            "Somebody has changed it, or a later lensmith wrote it: upgrade, or end the rollout in MLflow's page.",
        ) from error
