"""Where a run stands at a step boundary: everything about its course that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lensmith.config import TrainSettings


@dataclass
class Position:
    """The same on every rank.

    Attributes:
        epoch: 0-based, the one under way.
        batch: batches of it that are done.
        step: optimizer steps done since the run began.
        best_score: the best epoch's score, by the setting `monitor`, on the validation part.
        stale: epochs of the last phase since then.
        factor: what plateaus have left of the learning rates.
        flat: epochs since the best one, or since the last plateau.
        finished: nothing is left to do.
        solved: the head was solved for.
        elapsed_s: that a run with a time budget has been under way, all of its processes together.
        stepped_s: of those, before the first step.
        end_s: of those, after which no step is taken; None: there is no time budget.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_score: float | None = None
    stale: int = 0
    factor: float = 1.0
    flat: int = 0
    finished: bool = False
    solved: bool = False
    elapsed_s: float = 0.0
    stepped_s: float | None = None
    end_s: float | None = None

    @property
    def out_of_time(self) -> bool:
        """Whether no step may follow."""
        return self.end_s is not None and self.elapsed_s >= self.end_s

    def judge(self, score: float | None, in_last_phase: bool, settings: TrainSettings) -> bool:
        """Take an epoch's score (more is better; None: there is none) into account; whether it is the best so far."""
        if score is None or self.best_score is None or score > self.best_score:
            self.best_score, self.stale, self.flat = score, 0, 0
            return True
        self.stale += in_last_phase
        self.flat += 1
        if settings.schedule == "plateau" and self.flat >= settings.plateau_patience:
            self.factor, self.flat = self.factor * settings.plateau_factor, 0
        return False

    def next_epoch(self, settings: TrainSettings, total_steps: int) -> None:
        """Move to the next epoch, or to the end."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.finished = (
            self.out_of_time
            or self.epoch >= settings.epochs
            or self.step >= total_steps
            or self.stale >= settings.patience
        )


@dataclass
class Figures:
    """One rank's figures of the epoch under way.

    Attributes:
        seen: images.
        weight: sum of their sample weights.
        loss_sum: sum of their weighted losses.
        correct: how many were answered right.
        seconds: spent on the steps.
        waited_s: of those, waiting for data.
        retries: tries that ran out of memory.
        skipped: steps thrown away, their loss not being a number.
        chunks: how many the last step's batch was cut into.
        peak_bytes: the most memory held.
    """

    seen: int = 0
    weight: float = 0.0
    loss_sum: float = 0.0
    correct: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    retries: int = 0
    skipped: int = 0
    chunks: int = 0
    peak_bytes: int = 0

    @classmethod
    def of_all(cls, ranks: Sequence[dict[str, Any]]) -> Self:
        """The ranks' figures together: images add up, seconds pass for all at once."""
        added = {field.name: sum(rank[field.name] for rank in ranks) for field in fields(cls)}
        most = ("seconds", "waited_s", "retries", "skipped", "chunks", "peak_bytes")
        return cls(**{**added, **{name: max(rank[name] for rank in ranks) for name in most}})

    @property
    def loss(self) -> float:
        """Mean training loss so far."""
        return self.loss_sum / self.weight if self.weight else 0.0

    @property
    def accuracy(self) -> float:
        """Share of right answers so far."""
        return self.correct / max(1, self.seen)

    @property
    def images_per_second(self) -> float:
        """Throughput so far."""
        return self.seen / max(1e-9, self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)
