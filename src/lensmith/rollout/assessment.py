"""Assessment of a canary release: what each guard found, what follows from it, and what people are shown of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lensmith.core.result import plain
from lensmith.rollout.comparison import figures
from lensmith.rollout.latency_guard import LatencyWindow
from lensmith.rollout.metrics import ModelCounts

GuardState = Literal["too little data", "fine", "not compared", "watching", "over", "not judged"]


@dataclass(frozen=True)
class GuardResult:
    """The result of one guard.

    Attributes:
        state: `over` is a reason to roll back; `not compared` where one model has answered too little meanwhile, so
            that at most the service's objectives could be checked; `not judged` where the guard does not apply to this
            rollout.
        reason: the numbers in a sentence.
        evidence: what the guard decides by: the natural logarithm of the evidence against the challenger, ≥ 0; of the
            latency guard the number of slow windows. None where it has not computed any.
        limit: evidence from which on it is `over`.
    """

    state: GuardState
    reason: str
    evidence: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Assessment:
    """The result of all guards, from both models' counts.

    Attributes:
        action: recommended action.
        guard: name of the guard that is the reason to roll back, `proven` for a promotion, or empty.
        reason: the numbers in a sentence.
        guards: name of a guard → its result.
        objection: reason of the guards against a promotion, whoever promotes; empty where they have none.
        windows: windows of the latency guard, oldest first.
    """

    action: Literal["hold", "roll_back", "promote"]
    guard: str
    reason: str
    guards: dict[str, GuardResult]
    champion: ModelCounts
    challenger: ModelCounts
    objection: str = ""
    windows: tuple[LatencyWindow, ...] = ()

    @cached_property
    def figures(self) -> dict[str, Any]:
        """`lensmith.rollout.comparison.figures` of both models, and `seen`."""
        return {**figures(self.champion, self.challenger), **self.seen}

    @property
    def seen(self) -> dict[str, Any]:
        """What the guards see and decide by, as plain values for JSON.

        Returns:
            `guards` (each guard's state, reason, evidence and limit), `latency_windows`, `action`, `reason`,
            `objection`.
        """
        return {
            "guards": plain(self.guards),
            "latency_windows": plain(self.windows),
            "action": self.action,
            "reason": self.reason,
            "objection": self.objection,
        }
