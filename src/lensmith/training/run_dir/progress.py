"""A run's progress at a step boundary, as a checkpoint holds it: position and figures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass
class Position:
    """A run's position, the same on every rank; a checkpoint holds these fields.

    Attributes:
        epoch: the current epoch, 0-based.
        batch: number of its batches that are done.
        step: number of optimizer steps since the run's start.
        best_score: the best epoch's score on the validation part, by the setting `monitor`.
        stale: number of epochs of the last phase since the best one, for early stopping.
        factor: the share of the learning rates that plateaus have left, 0..1.
        flat: number of epochs since the best one, or since the last plateau.
        finished: whether nothing is left to do.
        solved: whether the head was solved for.
        elapsed_s: seconds that a run with a time budget has been under way, all of its processes together.
        stepped_s: seconds before its first step; None: there was none yet.
        end_s: seconds after which no step is taken; None: there is no time budget.
        best_epoch: the best epoch, 1-based; None: none is finished.
        best_accuracy: its accuracy on the validation part, 0..1; None: there is no such part.
        best_loss: its loss on the validation part, or on the training part where there is none.
        began_accuracy: `best_accuracy` when the current phase began.
        began_loss: `best_loss` when the current phase began; None: it is the first phase.
        worse: number of epochs in a row that were much worse than that, for `training.divergence`.
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
    best_epoch: int | None = None
    best_accuracy: float | None = None
    best_loss: float | None = None
    began_accuracy: float | None = None
    began_loss: float | None = None
    worse: int = 0

    @property
    def out_of_time(self) -> bool:
        """Whether no step may follow."""
        return self.end_s is not None and self.elapsed_s >= self.end_s

    @property
    def time_share(self) -> float | None:
        """Share of the time for steps that has passed, 0 or more; None: no time budget, or no step yet."""
        if self.end_s is None or self.stepped_s is None:
            return None
        return (self.elapsed_s - self.stepped_s) / max(1e-9, self.end_s - self.stepped_s)


@dataclass
class Figures:
    """One rank's figures of the current epoch.

    Attributes:
        seen: number of images.
        weight: sum of their sample weights.
        loss_sum: sum of their weighted losses.
        correct: number of correct answers.
        seconds: time spent on the steps.
        waited_s: seconds of it spent waiting for data.
        retries: number of tries that ran out of memory.
        skipped: number of steps thrown away because their loss was not a number.
        chunks: number of chunks of the last step's batch.
        peak_bytes: the most memory that was in use.
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
        """The figures of all ranks: images add up, seconds pass for all at once."""
        added = {field.name: sum(rank[field.name] for rank in ranks) for field in fields(cls)}
        most = ("seconds", "waited_s", "retries", "skipped", "chunks", "peak_bytes")
        return cls(**{**added, **{name: max(rank[name] for rank in ranks) for name in most}})

    @property
    def loss(self) -> float:
        """Mean training loss so far."""
        return self.loss_sum / self.weight if self.weight else 0.0

    @property
    def accuracy(self) -> float:
        """Share of correct answers so far, 0..1."""
        return self.correct / max(1, self.seen)

    @property
    def images_per_second(self) -> float:
        """Throughput so far, in images a second."""
        return self.seen / max(1e-9, self.seconds)


@dataclass
class TrainingState:
    """What a checkpoint holds besides the learner, and one rank changes as it trains.

    Attributes:
        position: the run's position.
        figures: this rank's figures of the current epoch.
        engines: the engine and precision that computed each phase's features, by phase.
        exact: phases whose features have to be exact (fp32 and float32), since rounded ones were found wanting.
        started: `time.monotonic()` at the run's start, as if all its processes had followed one another at once.
    """

    position: Position = field(default_factory=Position)
    figures: Figures = field(default_factory=Figures)
    engines: dict[str, str] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Note how much of a time budget has passed; without one a run's course depends on no clock."""
        position = self.position
        if position.end_s is not None:
            position.elapsed_s = time.monotonic() - self.started
            if position.stepped_s is None:
                position.stepped_s = position.elapsed_s
