"""The time budget: image size, trainable stages and epochs of a run that ends in time, from short measurements.

The plan is the largest image size at which the whole network still sees enough images in time; where there is none, it
trains fewer stages, else the head alone. Rates follow the time that has passed, not steps, so that they have fallen at
the end however fast the machine turns out to be.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import timm
import torch

from lensmith.config import TrainSettings
from lensmith.core.machine import allowed_cores
from lensmith.data.image_set import ImageSet
from lensmith.data.value_ranges import decide_ranges
from lensmith.errors import ImageError, SettingsError
from lensmith.imaging.decoding import decoded_size
from lensmith.training.dataloading import augment
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.sampler import Item
from lensmith.training.feature_cache.split_model import SplitPoint, find_split_point
from lensmith.training.learner import Learner
from lensmith.training.models import backbone
from lensmith.training.schedule import PRESETS, Phase

SMALLEST = 0.25
"""The smallest image size that is considered, as a share of the backbone's own."""

ENLARGED = 4
"""How many times an image may be enlarged, since more pixels hold no more information."""

FEW_STAGES, VIEWS = 2, 2
"""Number of stages that learn where there is no time for all, and of views of each image that they learn from."""

WHOLE_FROM, FEW_FROM = 0.5, 0.75
"""Shares of the largest size below which larger images are worth more than all trainable stages, or a few."""

EXPORT_S, ENGINE_S = 15.0, 8.0
"""Seconds to make the bundle, without its evaluation, and to find the engine for features."""

FEATURES_SPEED = 2.0
"""Images a second of that engine, at least, as a multiple of torch's forward pass."""

SOLVE_S_PER_IMAGE = 4e-4
"""Seconds to solve for a head, for each training image."""

LEAST_PASSES, MOST_PASSES, ENOUGH_IMAGES = 2.5, 6, 20_000
"""Images that stages have to see to be worth training: ENOUGH_IMAGES, within these passes over the data."""

MOST_EPOCHS = 60

FEW_PASSES = 8
IN_FEW_PASSES: Mapping[str, Any] = {
    "augment": "light", "mixup": 0.0, "cutmix": 0.0, "first_lr_ratio": None, "backbone_lr_ratio": 0.5,
}  # fmt: skip
"""Changes of a preset's settings below FEW_PASSES passes over the data, where strong augmentation does not pay."""


@dataclass(frozen=True)
class StepTimings:
    """Seconds that one image takes at one image size.

    Attributes:
        size: pixels a side.
        forward: seconds of a forward pass without gradients.
        whole: seconds of a step of all stages, with decoding.
        few: seconds of a step of the last stages, from features.
        decode: seconds to decode it, with all cores.
    """

    size: int
    forward: float
    whole: float
    few: float
    decode: float = 0.0

    def at(self, size: int) -> StepTimings:
        """The timings expected at another size: work grows with the number of pixels."""
        ratio = (size / self.size) ** 2
        return StepTimings(size, ratio * self.forward, ratio * self.whole, ratio * self.few, self.decode)


@dataclass(frozen=True)
class BudgetPlan:
    """A run that fits into its time budget.

    Attributes:
        settings: the run's settings, with image size, stages and epochs chosen.
        end_s: seconds after the run's start at which steps end, to leave time for validation and export.
        measured: the timings that the choice is based on.
    """

    settings: TrainSettings
    end_s: float
    measured: StepTimings

    def __str__(self) -> str:
        """The plan for people: stages, image size and seconds."""
        stages = self.settings.trainable_stages
        what = {None: "the whole network", 0: "the head alone"}.get(stages, f"the head and the last {stages} stages")
        return f"{what} at {self.settings.image_size} px, steps until {self.end_s:.0f} s"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for events.jsonl."""
        chosen = {name: getattr(self.settings, name) for name in ("image_size", "trainable_stages", "epochs")}
        return {**chosen, "end_s": self.end_s, "measured": asdict(self.measured)}


def plan(settings: TrainSettings, images: ImageSet, device: torch.device, spent_s: float = 0.0) -> BudgetPlan:
    """Choose what the settings leave open (image size, stages, epochs), so that the run ends within `time_budget`.

    Args:
        settings: the run's settings, with a time budget.
        images: the readable images, in parts.
        device: the device that trains.
        spent_s: seconds of the budget that have passed before.

    Raises:
        SettingsError: the time is too short even for a head alone.
    """
    budget_s = settings.time_budget
    assert budget_s is not None
    started = time.perf_counter()
    count, validation = len(images.part("train")), len(images.part("val"))
    sizes = _sizes(settings, images)
    measured = measure(settings, images, sizes[len(sizes) // 2], device)
    spent_s += time.perf_counter() - started
    options = [_Option(budget_s, measured.at(size), count, validation, spent_s) for size in sizes]
    tried: list[tuple[_Option, int | None]] = [(one, settings.trainable_stages) for one in options]
    if settings.trainable_stages is None:
        least = {None: WHOLE_FROM * sizes[0], FEW_STAGES: FEW_FROM * sizes[0], 0: 0.0}
        tried = [(one, stages) for stages, pixels in least.items() for one in options if one.measured.size >= pixels]
    found = next(((one, stages) for one, stages in tried if one.fits(stages)), None)
    if found is None:
        needed = budget_s - options[-1].left_s(0)
        raise SettingsError(
            f"A time budget of more than {1.2 * needed:.0f} s was expected for these images.",
            f"{budget_s:.0f} s arrived.",
            "Allow more time, or use fewer images or a smaller backbone.",
        )
    option, stages = found
    chosen: dict[str, Any] = {
        "image_size": option.measured.size, "trainable_stages": stages, "epochs": option.epochs(stages),
        "head_epochs": int(option.epochs(stages) > 1),
    }  # fmt: skip
    if stages:  # in so little time they learn from features, whose images are not mixed
        chosen |= {"views": VIEWS, "mixup": 0.0, "cutmix": 0.0}
    elif stages is None and option.passes(stages) < FEW_PASSES:
        chosen |= {name: value for name, value in IN_FEW_PASSES.items() if _is_of_preset(settings, name)}
    if stages == 0:
        chosen |= {"unfreeze_every": None, "feature_weight": 0.0}  # neither reaches a head alone
    return BudgetPlan(TrainSettings.model_validate({**dict(settings), **chosen}), option.end_s, measured)


class _Option:
    """A plan at one image size.

    Args:
        budget_s: seconds for the whole run.
        measured: the timings at that size.
        count: number of training images.
        validation: number of validation images.
        spent_s: seconds of the budget that have passed.
    """

    def __init__(self, budget_s: float, measured: StepTimings, count: int, validation: int, spent_s: float) -> None:
        self.measured, self.count, self.validation, self.spent_s = measured, count, validation, spent_s
        self.wanted = max(LEAST_PASSES * count, min(ENOUGH_IMAGES, MOST_PASSES * count))
        # Validated after the last step, by the exporter, and by the engine that is to serve.
        self.end_s = budget_s - EXPORT_S - 3 * validation * measured.forward
        self.end_s -= (count + validation) * measured.decode  # for the bundle's image hashes
        self.features_s = (count + validation) * measured.forward / FEATURES_SPEED + ENGINE_S

    def left_s(self, stages: int | None) -> float:
        """Seconds left for steps, once all features are there."""
        more = VIEWS * self.features_s if stages else 0.0
        return self.end_s - self.spent_s - self.features_s - more - SOLVE_S_PER_IMAGE * self.count

    def fits(self, stages: int | None) -> bool:
        """Whether there is time to see enough images."""
        return self.left_s(stages) > self.wanted * self._step_s(stages)

    def passes(self, stages: int | None) -> float:
        """Expected number of passes over the training images."""
        return self.left_s(stages) / (self.count * self._step_s(stages) + self.validation * self.measured.forward)

    def epochs(self, stages: int | None) -> int:
        """Number of epochs, more than expected, since the time ends the run."""
        if stages == 0:
            return 1
        most = min(MOST_EPOCHS, 2 + int(1.5 * self.passes(stages)))
        return most if stages is None else max(most, 2 * VIEWS + 1)  # for features to be used at least twice

    def _step_s(self, stages: int | None) -> float:
        return {None: self.measured.whole, 0: 0.0}.get(stages, self.measured.few)


def _is_of_preset(settings: TrainSettings, name: str) -> bool:
    """Whether a setting has its preset's value, so that nobody has asked for it."""
    default = TrainSettings.model_fields[name].default
    return bool(getattr(settings, name) == PRESETS[settings.preset].get(name, default))


def measure(settings: TrainSettings, images: ImageSet, size: int, device: torch.device) -> StepTimings:
    """Time a few steps on noise and the decoding of a few images, at `size` pixels a side."""
    at_size = settings.model_copy(update={"image_size": size, "pretrained": False, "weights": None, "ema": None})
    network = backbone.build(at_size, len(images.labels))
    training = images.part("train")
    counts = Counter(sample.label for sample in training)
    learner = Learner(network, at_size, network.preprocessing, images.labels, counts, device)
    how = replace(network.preprocessing, value_ranges=decide_ranges(images))
    dataset = ImageDataset(images, training, how, augment.build(settings, size), settings.seed)
    decode_s = _seconds(lambda: [dataset[Item(0, sample)] for sample in range(min(32, len(training)))], 1)
    shared = decode_s / min(32, len(training)) / allowed_cores()
    few = min(FEW_STAGES, len(network.stages) - 1)
    whole_s = _step_s(learner, None, size) + shared
    split_point = find_split_point(network, few, size)
    few_s = whole_s if split_point is None else _step_s(learner, few, None, split_point)
    noise = torch.rand(min(32, settings.batch_size), 3, size, size, device=device)

    def forward() -> None:
        with torch.inference_mode():
            network.model(noise.to(memory_format=torch.channels_last))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    network.model.eval()
    return StepTimings(size, _seconds(forward) / len(noise) + shared, whole_s, few_s, shared)


def _step_s(learner: Learner, stages: int | None, size: int | None, split_point: SplitPoint | None = None) -> float:
    """Seconds of a step for each of its images."""
    images = min(64, learner.settings.batch_size)
    learner.enter(Phase(f"measured {stages}", 0, 1, stages, size), split_point)
    return _seconds(lambda: learner.trial_steps().run(images)) / images


def _seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The median seconds of some rounds, after one to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:] if rounds > 1 else seconds))


def _sizes(settings: TrainSettings, images: ImageSet) -> list[int]:
    """Image sizes to consider in pixels a side, the largest first."""
    if settings.model_size:
        return [settings.model_size]
    cfg = timm.get_pretrained_cfg(settings.model)
    own = cfg.input_size[-1] if cfg is not None else 224
    if cfg is not None and cfg.fixed_input_size:
        return [own]
    most = ENLARGED * _shorter_side(images)
    smallest = max(32, 16 * round(SMALLEST * own / 16))
    return [size for size in range(16 * (own // 16), smallest, -16) if size <= most] or [smallest]


def _shorter_side(images: ImageSet) -> int:
    """The median shorter side of some of the images, in pixels."""
    samples = images.part("train")
    sides = []
    for sample in samples[:: max(1, len(samples) // 50)]:
        with suppress(ImageError):
            sides.append(min(decoded_size(images.file(sample))))
    return int(np.median(sides)) if sides else 224
