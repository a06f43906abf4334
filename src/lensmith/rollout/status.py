"""The canary releases of a model, as the registry has them: looked at once, or again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lensmith.registry.client import client as connect
from lensmith.registry.client import uri
from lensmith.registry.models import champion_of
from lensmith.rollout.guards import RolloutGuards
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.report import RolloutReport
from lensmith.rollout.state import CanaryRelease, Decision, now


@dataclass(frozen=True)
class ReplicaStatus:
    """What one replica has reported of a release.

    Attributes:
        name: of the replica.
        age_s: seconds since it did; None: it does not say when.
        champion: requests to the champion there.
        challenger: requests to the challenger there.
        stopped: why it sends the challenger nothing more; empty where it does.
    """

    name: str
    age_s: float | None
    champion: int
    challenger: int
    stopped: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class RolloutStatus:
    """The canary releases of a model, as the registry has them.

    Attributes:
        name: of the model.
        champion: version that the alias names now; None: it names none.
        rollout: the latest; None: there has been none.
        decision: how it ended; None: it is under way.
        comparison: `figures` of `lensmith.rollout.guards.Assessment` over all replicas.
        replicas: what each has reported.
        history: earlier releases with their decisions, the latest first.
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
        return {
            "name": self.name,
            "champion": self.champion,
            "rollout": self.rollout.model_dump(mode="json") if self.rollout else None,
            "decision": self.decision.model_dump(mode="json") if self.decision else None,
            "comparison": dict(self.comparison),
            "replicas": [replica.as_dict() for replica in self.replicas],
            "history": [
                {
                    "rollout": rollout.model_dump(mode="json"),
                    "decision": decision.model_dump(mode="json") if decision else None,
                }
                for rollout, decision in self.history
            ],
        }


def status(name: str, tracking_uri: str | None = None) -> RolloutStatus:
    """The releases of a model.

    Raises:
        RegistryError: no such model.
    """
    return StatusWatcher(name, tracking_uri).look()


class StatusWatcher:
    """Looks again and again, over one connection, and judges as a replica does.

    Args:
        name: registered model.
        tracking_uri: of the registry.

    Raises:
        RegistryError: no registry there.
    """

    def __init__(self, name: str, tracking_uri: str | None = None) -> None:
        self._name = name
        self._client = connect(uri(tracking_uri), create=False)
        self._guard: RolloutGuards | None = None

    def look(self) -> RolloutStatus:
        """As the registry says now; see `status`."""
        champion = champion_of(self._client, self._name)
        ledger = Ledger.open(self._client, self._name, create=False)
        states = ledger.history() if ledger else []
        latest = states[-1] if states else None
        return RolloutStatus(
            self._name,
            champion.version if champion else None,
            latest.rollout if latest else None,
            latest.decision if latest else None,
            self._comparison(latest) if latest else {},
            [_replica(name, report) for name, report in sorted(latest.reports.items())] if latest else [],
            [(each.rollout, each.decision) for each in reversed(states[:-1])],
        )

    def _comparison(self, state: LedgerEntry) -> Mapping[str, Any]:
        if state.decision is not None and "champion" in state.decision.figures:
            return state.decision.figures
        counted = total(state)
        if self._guard is None or self._guard.rollout.id != state.rollout.id:
            self._guard = RolloutGuards(state.rollout)
        return self._guard.look(counted.champion, counted.challenger).figures


def total(state: LedgerEntry) -> RolloutReport:
    """What all replicas have reported, added up."""
    reports = []
    for report in state.reports.values():
        with suppress(ValueError, TypeError, AttributeError, KeyError):  # of another lensmith: it counts for nothing
            reports.append(RolloutReport.from_dict(report))
    return RolloutReport.merge(state.rollout.id, reports)


def _replica(name: str, stored: Mapping[str, Any]) -> ReplicaStatus:
    age_s, report = None, RolloutReport("")
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        report = RolloutReport.from_dict(stored)
        age_s = max(0.0, (now() - datetime.fromisoformat(str(stored["at"]))).total_seconds())
    stopped = f"{report.stop.guard}: {report.stop.reason}" if report.stop else ""
    return ReplicaStatus(name, age_s, report.champion.requests, report.challenger.requests, stopped)
