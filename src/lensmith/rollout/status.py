"""Status of a model's rollouts, as the registry has them: read once, or again and again."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lensmith.core.result import Result, plain
from lensmith.registry.client import client as connect
from lensmith.registry.client import uri
from lensmith.registry.models import champion_of
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.report import SEEN, RolloutReport, read_reports
from lensmith.rollout.state import CanaryRelease, Decision, now

LIVE = timedelta(seconds=60)
"""Age, against the newest one, of a replica's report at which it is no longer asked what its guards see."""


@dataclass(frozen=True)
class ReplicaStatus(Result):
    """One replica's report about a rollout.

    Attributes:
        name: the replica's name.
        age_s: seconds since its last report; None where the report has no time.
        champion: requests that its champion answered or failed.
        challenger: requests that its challenger answered or failed.
        stopped: guard and reason why it sends the challenger nothing more; empty while it does.
    """

    name: str
    age_s: float | None
    champion: int
    challenger: int
    stopped: str


@dataclass(frozen=True)
class RolloutStatus(Result):
    """A model's rollouts.

    Attributes:
        name: the registered model's name.
        champion: version that the alias champion names now; None where it names none.
        rollout: latest rollout; None before the first.
        decision: decision that ended the latest rollout; None while it is under way.
        comparison: `figures` of `lensmith.rollout.assessment.Assessment` over all replicas; its guards and windows are
            those of a replica, named by `seen_by`, which decides by them.
        replicas: every replica's report.
        history: earlier rollouts with their decisions, the latest first.
    """

    name: str
    champion: str | None
    rollout: CanaryRelease | None
    decision: Decision | None
    comparison: Mapping[str, Any]
    replicas: Sequence[ReplicaStatus]
    history: Sequence[tuple[CanaryRelease, Decision | None]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        history = [{"rollout": plain(rollout), "decision": plain(decision)} for rollout, decision in self.history]
        return {**super().as_dict(), "history": history}


def status(name: str, tracking_uri: str | None = None) -> RolloutStatus:
    """The status of a model's rollouts.

    Raises:
        RegistryError: there is no such model.
    """
    return StatusWatcher(name, tracking_uri).look()


class StatusWatcher:
    """Reads a model's status again and again over one connection, and assesses the counts as a replica does.

    Raises:
        RegistryError: there is no registry.
    """

    def __init__(self, name: str, tracking_uri: str | None = None) -> None:
        self._name = name
        self._client = connect(uri(tracking_uri), create=False)
        self._guards: RolloutGuards | None = None

    def look(self) -> RolloutStatus:
        """The present status; see `status`."""
        champion = champion_of(self._client, self._name)
        ledger = Ledger.find(self._client, self._name)
        entries = ledger.history() if ledger else []
        latest = entries[-1] if entries else None
        return RolloutStatus(
            self._name,
            champion.version if champion else None,
            latest.rollout if latest else None,
            latest.decision if latest else None,
            self._comparison(latest) if latest else {},
            [_replica(name, report) for name, report in sorted(latest.reports.items())] if latest else [],
            [(each.rollout, each.decision) for each in reversed(entries[:-1])],
        )

    def _comparison(self, entry: LedgerEntry) -> Mapping[str, Any]:
        if entry.decision is not None and "champion" in entry.decision.figures:
            return entry.decision.figures
        if self._guards is None or self._guards.rollout.id != entry.rollout.id:
            self._guards = RolloutGuards(entry.rollout)
        counted = total(entry)
        assessed = self._guards.assess(counted.champion, counted.challenger).figures
        return {**assessed, **seen_by_replica(entry)}


def total(entry: LedgerEntry) -> RolloutReport:
    """The sum of all replicas' reports; those of another lensmith's format are left out."""
    return RolloutReport.merge(entry.rollout.id, read_reports(entry.reports, lambda warning: None))


def seen_by_replica(entry: LedgerEntry) -> Mapping[str, Any]:
    """What the guards of a replica see, `Assessment.seen` and `seen_by`; empty where none has reported it.

    The replicas count windows of latency from different moments. Of those that report, the one is chosen whose guards
    are nearest to a rollback, since any replica may decide.
    """
    recent: dict[str, tuple[datetime, Mapping[str, Any]]] = {}
    for name, report in entry.reports.items():
        with suppress(ValueError, KeyError, TypeError):
            seen, at = report[SEEN], datetime.fromisoformat(str(report["at"]))
            if at.tzinfo is not None and all(each["state"] for each in seen["guards"].values()):
                recent[name] = at, seen
    newest = max((at for at, _ in recent.values()), default=None)
    if newest is None:
        return {}
    # One that has been replaced stays in the ledger, and sees nothing any more.
    live = {name: seen for name, (at, seen) in recent.items() if newest - at <= LIVE}
    name = max(sorted(live), key=lambda each: _severity(live[each]))
    return {**live[name], "seen_by": name}


def _severity(seen: Mapping[str, Any]) -> tuple[int, ...]:
    states = [each["state"] for each in seen["guards"].values()]
    return tuple(states.count(state) for state in ("over", "watching", "not compared", "too little data"))


def _replica(name: str, stored: Mapping[str, Any]) -> ReplicaStatus:
    age_s, report = None, RolloutReport("")
    with suppress(ValueError, KeyError, TypeError):  # TypeError: a time without a zone
        report = RolloutReport.from_dict(stored)
        age_s = max(0.0, (now() - datetime.fromisoformat(str(stored["at"]))).total_seconds())
    stopped = f"{report.stop.guard}: {report.stop.reason}" if report.stop else ""
    return ReplicaStatus(name, age_s, report.champion.requests, report.challenger.requests, stopped)
