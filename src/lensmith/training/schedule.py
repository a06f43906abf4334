"""The schedule of a run: presets, phases, warm-up, and the learning rate of every step as a pure function.

A *stage* is a part of the network, counted from the head: 0 is the head, 1 the last stage of the backbone. A *phase*
is a number of epochs with the same trainable stages and image size. Since the rate depends on the step alone, resuming
needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

from lensmith.config import TrainSettings
from lensmith.config.base import read_yaml
from lensmith.errors import SettingsError

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"epochs": 5, "trainable_stages": 0, "augment": "light"},
    "balanced": {},
    "best": {
        "epochs": 40, "first_lr_ratio": 0.01, "dropout": 0.2, "augment": "trivial", "mixup": 0.2, "cutmix": 0.2,
        "ema": 0.998, "patience": 10,
    },
    "finetune-head": {
        "trainable_stages": 0, "optimizer": "sgd", "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0,
        "image_size": 224, "resize": "squash", "augment": "flip", "views": 2, "label_smoothing": 0.0,
        "head_solver": "minibatch",
    },
    "layerwise": {
        "head_epochs": 0, "optimizer": "sgd", "first_lr_ratio": 0.01, "weight_decay": 1e-4, "dropout": 0.5,
    },
    "high-resolution": {
        "sizes": (256, 384, 512), "epochs": 10, "head_epochs": 1, "batch_size": 16, "accumulate": 4,
        "optimizer": "adam", "weight_decay": 0.0, "augment": "light",
    },
}  # fmt: skip
"""Preset → the settings it changes; recipe files, the environment and flags take precedence."""

WITHOUT_DATA: Mapping[str, Any] = {"data": "."}
"""A placeholder for what a recipe leaves to the command line."""


def settings_of(
    given: Mapping[str, Any], recipe: Mapping[str, Any] | None = None, others: Sequence[str] = ()
) -> TrainSettings:
    """The settings of a run, over the preset that any of their sources names.

    Args:
        given: flags or keywords; None means not given.
        recipe: the content of a recipe file.
        others: mistakes found elsewhere, reported together with those found here.

    Raises:
        SettingsError: one paragraph with all that is wrong.
    """
    written = recipe or {}
    preset = TrainSettings.layers(given, written).get("preset", TrainSettings.model_fields["preset"].default)
    return TrainSettings.resolve(given, {**PRESETS.get(str(preset), {}), **written}, others)


def named(which: str | PathLike[str]) -> TrainSettings:
    """The settings of a preset or of a recipe file; `data` is a placeholder unless the file names it.

    Raises:
        SettingsError: `which` is neither a preset nor a usable recipe file.
    """
    path = Path(which)
    if str(which) in PRESETS:
        return settings_of({"preset": str(which)}, WITHOUT_DATA)
    if not path.is_file():
        raise SettingsError(
            f"A preset ({', '.join(PRESETS)}) or a recipe file was expected.",
            f"{str(which)!r} is neither.",
            "Name one of the presets, or check the path.",
        )
    return settings_of({}, {**WITHOUT_DATA, **read_yaml(path)})


@dataclass(frozen=True)
class Phase:
    """A run's phase: epochs with the same trainable stages and image size.

    Attributes:
        name: `head`, `last 2` or `all`, with `@384` where the image size changes during the run.
        first_epoch: 0-based, inclusive.
        end_epoch: 0-based, exclusive.
        trainable: number of the backbone's last stages that learn; 0: the head alone, None: all.
        image_size: pixels a side to train at; None: the model's own.
        is_head_warmup: whether the head alone learns, before more does; images are not mixed yet.
    """

    name: str
    first_epoch: int
    end_epoch: int
    trainable: int | None
    image_size: int | None = None
    is_head_warmup: bool = False

    def learns(self, stage: int) -> bool:
        """Whether the stage with this number (0 is the head) learns."""
        return self.trainable is None or stage <= self.trainable


@dataclass
class TrainingSchedule:
    """Phases, step counts and learning rates of a run, with linear warm-up.

    Attributes:
        phases: the phases in order, without gaps.
        steps_per_epoch: optimizer steps in a whole epoch.
        total_steps: steps of the whole run; the cosine ends there.
        warmup_steps: steps of linear warm-up, after the start and again for each stage when it is unfrozen.
        cosine: whether the rate falls with the steps; else it stays at its peak, unless a plateau lowers it.
        head_solved: whether the head was solved for, so that its rate warms up when it first takes steps.
    """

    phases: tuple[Phase, ...]
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    cosine: bool = True
    head_solved: bool = False

    @classmethod
    def of(cls, settings: TrainSettings, images: int, stages: int) -> TrainingSchedule:
        """The schedule for `images` training images and a backbone of `stages` stages."""
        steps = math.ceil(images / settings.step_images)
        total = min(settings.epochs * steps, settings.max_steps or settings.epochs * steps)
        phases = phases_of(settings, stages)
        return cls(phases, steps, total, round(settings.warmup * total), settings.schedule == "cosine")

    def phase(self, epoch: int) -> Phase:
        """The phase that a 0-based epoch belongs to."""
        return next(phase for phase in self.phases if phase.first_epoch <= epoch < phase.end_epoch)

    def rate(self, step: int, *, stage: int) -> float:
        """Share (0..1) of a stage's peak rate for a 0-based step: linear warm-up, then constant or half a cosine to 0.

        Source of the cosine: Loshchilov and Hutter, SGDR, 2017, without restarts.
        """
        unfrozen = next((phase.first_epoch for phase in self._with_steps() if phase.learns(stage)), None)
        if unfrozen is None:
            return 0.0
        warm = min(1.0, (step - unfrozen * self.steps_per_epoch + 1) / (self.warmup_steps + 1))
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps))) if self.cosine else 1.0
        return max(0.0, warm) * fall

    def step_at(self, progress: float) -> int:
        """The step that an even pace has reached after a share (0..1) of the time that steps take."""
        first = next(self._with_steps()).first_epoch * self.steps_per_epoch
        return first + int(min(1.0, progress) * (self.total_steps - first))

    def _with_steps(self) -> Iterator[Phase]:
        """Phases that take steps: all but the head's warm-up where the head was solved for."""
        return (phase for phase in self.phases if not (self.head_solved and phase.is_head_warmup))


def phases_of(settings: TrainSettings, stages: int) -> tuple[Phase, ...]:
    """The phases of a run whose backbone has `stages` stages."""
    most = stages if settings.trainable_stages is None else min(stages, settings.trainable_stages)

    def kind(epoch: int) -> tuple[int | None, int | None]:
        """Number of trainable stages (None: all of them) and image size in a 0-based epoch."""
        sizes, unfrozen = settings.sizes, epoch - settings.head_epochs
        size = sizes[epoch * len(sizes) // settings.epochs] if sizes else None
        if unfrozen < 0 or most == 0:
            return 0, size
        count = most if settings.unfreeze_every is None else min(most, unfrozen // settings.unfreeze_every + 1)
        return None if count == stages else count, size

    phases = []
    for (trainable, size), epochs in groupby(range(settings.epochs), kind):
        first, *rest = epochs
        name = {None: "all", 0: "head"}.get(trainable, f"last {trainable}")
        end = (rest[-1] if rest else first) + 1
        warmup = trainable == 0 and most > 0 and end < settings.epochs
        phases.append(Phase(name if size is None else f"{name}@{size}", first, end, trainable, size, warmup))
    return tuple(phases)
