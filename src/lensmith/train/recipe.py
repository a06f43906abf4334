"""What a run does when: presets, stages, and the learning rate of every step as a pure function.

Since the rate depends on the step alone, resuming needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lensmith.config import TrainSettings

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # More epochs of the head than any run has: however many there are, the backbone stays frozen.
    "fast": {"epochs": 5, "head_epochs": 10_000, "augment": "light"},
    "balanced": {},
}
"""Preset → settings it changes; recipe files, the environment and flags go over them."""


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs with the same trainable set.

    Attributes:
        name: `head` (backbone frozen) or `all`.
        first_epoch: 0-based, inclusive.
        end_epoch: exclusive.
    """

    name: str
    first_epoch: int
    end_epoch: int

    @property
    def frozen(self) -> bool:
        """Whether the backbone stands still."""
        return self.name == "head"


@dataclass(frozen=True)
class Plan:
    """Stages and step counts of a run.

    Attributes:
        stages: in order, without gaps.
        steps_per_epoch: optimizer steps in a whole epoch.
        total_steps: steps of the whole run; the cosine ends there.
        warmup_steps: linear warm-up, after the start and again for the backbone when it is unfrozen.
    """

    stages: tuple[Stage, ...]
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    @classmethod
    def of(cls, settings: TrainSettings, images: int) -> Plan:
        """The plan for `images` training images."""
        head = min(settings.head_epochs, settings.epochs)
        spans = [("head", 0, head), ("all", head, settings.epochs)]
        stages = tuple(Stage(name, first, end) for name, first, end in spans if end > first)
        steps = math.ceil(images / settings.batch_size)
        total = min(settings.epochs * steps, settings.max_steps or settings.epochs * steps)
        return cls(stages, steps, total, round(settings.warmup * total))

    def stage(self, epoch: int) -> Stage:
        """The stage that a 0-based epoch belongs to."""
        return next(stage for stage in self.stages if stage.first_epoch <= epoch < stage.end_epoch)

    def rate(self, step: int, *, backbone: bool) -> float:
        """Share (0..1) of the peak learning rate for a 0-based step: linear warm-up, then half a cosine to 0.

        Source: Loshchilov and Hutter, SGDR, 2017, without restarts.
        """
        thawed = self.stages[-1].first_epoch * self.steps_per_epoch if backbone else 0
        warm = min(1.0, (step - thawed + 1) / (self.warmup_steps + 1))
        return max(0.0, warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))
