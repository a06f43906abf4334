"""Rollout report: what one process of a service, or one replica, has counted of both models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from lensmith.rollout.metrics import ModelCounts

Role = Literal["champion", "challenger"]


@dataclass(frozen=True)
class StopReason:
    """The reason why one process sends the challenger no more requests.

    Attributes:
        guard: `load`, `not-finite` or `errors-in-a-row`.
        reason: sentence for people.
    """

    guard: str
    reason: str


@dataclass
class RolloutReport:
    """Counts of both models since a rollout began.

    Attributes:
        rollout: the rollout's id.
        champion: the champion's counts.
        challenger: the challenger's counts.
        stop: first reason to stop the challenger; None while it gets requests.
    """

    rollout: str
    champion: ModelCounts = field(default_factory=ModelCounts)
    challenger: ModelCounts = field(default_factory=ModelCounts)
    stop: StopReason | None = None

    def of(self, role: Role) -> ModelCounts:
        """The counts of one of the two models."""
        return self.champion if role == "champion" else self.challenger

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as the channel and the ledger store them."""
        return {
            "rollout": self.rollout,
            "champion": self.champion.as_dict(),
            "challenger": self.challenger.as_dict(),
            "stop": [self.stop.guard, self.stop.reason] if self.stop else None,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """The report that `as_dict` made plain; further keys are ignored.

        Raises:
            ValueError, TypeError, AttributeError, KeyError: the values are no report.
        """
        stop = stored.get("stop")
        return cls(
            str(stored["rollout"]),
            ModelCounts.from_dict(stored["champion"]),
            ModelCounts.from_dict(stored["challenger"]),
            StopReason(*map(str, stop)) if stop else None,
        )

    @classmethod
    def merge(cls, rollout: str, reports: Iterable[RolloutReport]) -> Self:
        """The sum of the reports about one rollout, with the first reason to stop."""
        total = cls(rollout)
        for each in reports:
            if each.rollout == rollout:
                total.champion.add(each.champion)
                total.challenger.add(each.challenger)
                total.stop = total.stop or each.stop
        return total


def read_reports(stored: Mapping[str, Mapping[str, Any]], warn: Callable[[str], None]) -> list[RolloutReport]:
    """Parse replicas' reports; a garbled one is left out, since it must not prevent a rollback.

    Args:
        stored: replica → its report as the ledger has it.
        warn: receives a sentence about each report that is left out.
    """
    found = []
    for replica, report in stored.items():
        try:
            found.append(RolloutReport.from_dict(report))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            warn(f"The report of {replica} cannot be read and is left out ({error!r}).")
    return found
