"""What one process of a service, or one replica, has to say of a canary release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from lensmith.rollout.metrics import ModelCounts

Role = Literal["champion", "challenger"]


@dataclass(frozen=True)
class StopReason:
    """A reason to send the challenger nothing more, seen by the process that it happened to.

    Attributes:
        guard: `load`, `not-finite` or `errors-in-a-row`.
        reason: in words.
    """

    guard: str
    reason: str


@dataclass
class RolloutReport:
    """ModelCounts of both models since the release began.

    Attributes:
        rollout: its id.
        champion: what the champion did meanwhile.
        challenger: what the challenger did.
        stop: why the challenger is sent nothing more, where that has happened.
    """

    rollout: str
    champion: ModelCounts = field(default_factory=ModelCounts)
    challenger: ModelCounts = field(default_factory=ModelCounts)
    stop: StopReason | None = None

    def of(self, role: Role) -> ModelCounts:
        """The counts of one of them."""
        return self.champion if role == "champion" else self.challenger

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rollout": self.rollout,
            "champion": self.champion.as_dict(),
            "challenger": self.challenger.as_dict(),
            "stop": [self.stop.guard, self.stop.reason] if self.stop else None,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """What `as_dict` made, with whatever else stands beside it.

        Raises:
            ValueError, TypeError, AttributeError, KeyError: something else.
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
        """The sum of those that are about this release, with the first reason to stop."""
        total = cls(rollout)
        for each in reports:
            if each.rollout == rollout:
                total.champion.add(each.champion)
                total.challenger.add(each.challenger)
                total.stop = total.stop or each.stop
        return total
