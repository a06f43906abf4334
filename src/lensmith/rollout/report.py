"""Rollout report: what one process of a service, or one replica, has counted of both models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from lensmith.rollout.metrics import ModelCounts

Role = Literal["champion", "challenger"]

SEEN = "seen"
"""Key of a replica's report in the ledger: what its guards see, `Assessment.seen`."""


class StopReason(NamedTuple):
    """The reason why one process sends the challenger no more requests.

    Attributes:
        guard: `load`, `not-finite` or `errors-in-a-row`.
        reason: sentence for people.
    """

    guard: str
    reason: str


@dataclass
class RolloutReport:
    """Counts of both models since a rollout, named by its id, began; the first reason to stop the challenger."""

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
            "stop": list(self.stop) if self.stop else None,
        }

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> RolloutReport:
        """The report that `as_dict` made plain; further keys are ignored.

        Raises:
            ValidationError: the values are no report.
        """
        return _ADAPTER.validate_python(stored)

    @classmethod
    def merge(cls, rollout: str, reports: Iterable[RolloutReport]) -> RolloutReport:
        """The sum of the reports about one rollout, with the first reason to stop."""
        total = cls(rollout)
        for each in reports:
            if each.rollout == rollout:
                total.champion.add(each.champion)
                total.challenger.add(each.challenger)
                total.stop = total.stop or each.stop
        return total


_ADAPTER = TypeAdapter(RolloutReport)


def read_reports(stored: Mapping[str, Mapping[str, Any]], warn: Callable[[str], None]) -> list[RolloutReport]:
    """Parse the reports of replicas by their names; a garbled one is left out, since it must not prevent a rollback."""
    found = []
    for replica, report in stored.items():
        try:
            found.append(RolloutReport.from_dict(report))
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
            warn(f"The report of {replica} cannot be read and is left out ({problem}).")
    return found
