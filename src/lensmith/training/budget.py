"""A training that ends in time: resolution, what learns and epochs from short measurements.

Of all that would end in time this takes the largest pictures at which the whole network still sees enough images; where
none does, fewer stages; else the head alone. While it trains, rates fall with the time that has passed, not with steps,
so that the run comes to rest at its end however fast the machine turns out to be.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import timm
import torch

from lensmith.config import TrainSettings
from lensmith.core.machine import allowed_cores
from lensmith.data.scan import ImageSet
from lensmith.errors import ImageError, SettingsError
from lensmith.imaging.decode import decoded_size
from lensmith.training.dataloading import augment
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.sampler import Item
from lensmith.training.feature_cache.split_model import find_split_point
from lensmith.training.learner import Learner
from lensmith.training.models import backbone
from lensmith.training.schedule import PRESETS, Phase

SMALLEST = 0.25
"""Share of the backbone's own size below which none is considered."""

ENLARGED = 4
"""Times its own pixels that a picture may be enlarged: beyond, more pixels say nothing more."""

FEW_STAGES, VIEWS = 2, 2
"""Stages that learn where there is no time for all, and the views of each image that they learn from."""

WHOLE_FROM, FEW_FROM = 0.5, 0.75
"""Shares of the largest size below which larger pictures are worth more than all stages, or a few, that learn."""

EXPORT_S, ENGINE_S = 15.0, 8.0
"""To make the bundle besides judging it, and to find the engine for features."""

FEATURES_SPEED = 2.0
"""ImageDataset a second of that engine, at least, as a multiple of torch's forward pass."""

SOLVE_S_PER_IMAGE = 4e-4

LEAST_PASSES, MOST_PASSES, ENOUGH_IMAGES = 2.5, 6, 20_000
"""ImageDataset that stages should see to be worth training: ENOUGH_IMAGES, within these passes over the data."""

MOST_EPOCHS = 60

FEW_PASSES = 8
IN_FEW_PASSES: Mapping[str, Any] = {
    "augment": "light", "mixup": 0.0, "cutmix": 0.0, "first_lr_ratio": None, "backbone_lr_ratio": 0.5,
}  # fmt: skip
"""What a preset's settings become where there are fewer passes than FEW_PASSES: strong augmentation and cautious rates
need many to pay."""


@dataclass(frozen=True)
class StepTimings:
    """Seconds an image takes at one size.

    Attributes:
        size: pixels a side.
        forward: through the network, without gradients.
        whole: a step of all stages, with its share of decoding.
        few: the same of the last stages, from features.
    """

    size: int
    forward: float
    whole: float
    few: float

    def at(self, size: int) -> StepTimings:
        """What is to be expected at another size: work grows with the number of pixels."""
        ratio = (size / self.size) ** 2
        return StepTimings(size, ratio * self.forward, ratio * self.whole, ratio * self.few)


@dataclass(frozen=True)
class BudgetPlan:
    """What fits into a budget.

    Attributes:
        settings: with size, stages and epochs chosen.
        end_s: seconds after the run's begin at which steps end, to leave time for judging and export.
        measured: what the choice rests on.
    """

    settings: TrainSettings
    end_s: float
    measured: StepTimings

    def __str__(self) -> str:
        """For people."""
        stages = self.settings.trainable_stages
        what = {None: "the whole network", 0: "the head alone"}.get(stages, f"the head and the last {stages} stages")
        return f"{what} at {self.settings.image_size} px, steps until {self.end_s:.0f} s"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for events.jsonl."""
        chosen = {name: getattr(self.settings, name) for name in ("image_size", "trainable_stages", "epochs")}
        return {**chosen, "end_s": self.end_s, "measured": asdict(self.measured)}


def plan(settings: TrainSettings, images: ImageSet, device: torch.device) -> BudgetPlan:
    """Choose what the settings leave open, so that the run ends within `time_budget`.

    Args:
        settings: an image size or number of stages that they name is kept.
        images: split into parts.
        device: where to train.

    Raises:
        SettingsError: not even a head can be had in that time.
    """
    assert settings.time_budget is not None
    started = time.perf_counter()
    count, held = len(images.part("train")), len(images.part("val"))
    sizes = _sizes(settings, images)
    measured = measure(settings, images, sizes[len(sizes) // 2], device)
    spent_s = time.perf_counter() - started
    options = [_Option(settings, measured.at(size), count, held, spent_s) for size in sizes]
    tried: list[tuple[_Option, int | None]] = [(one, settings.trainable_stages) for one in options]
    if settings.trainable_stages is None:
        least = {None: WHOLE_FROM * sizes[0], FEW_STAGES: FEW_FROM * sizes[0], 0: 0.0}
        tried = [(one, stages) for stages, pixels in least.items() for one in options if one.measured.size >= pixels]
    found = next(((one, stages) for one, stages in tried if one.fits(stages)), None)
    if found is None:
        needed = settings.time_budget - options[-1].left_s(0)
        raise SettingsError(
            f"A time budget of more than {1.2 * needed:.0f} s was expected for these images.",
            f"{settings.time_budget:.0f} s arrived.",
            "Allow more time, or use fewer images or a smaller backbone.",
        )
    option, stages = found
    chosen: dict[str, Any] = {
        "image_size": option.measured.size, "trainable_stages": stages, "epochs": option.epochs(stages),
        "head_epochs": int(option.epochs(stages) > 1),
    }  # fmt: skip
    if stages:  # in so little time they learn from features, which are of pictures that are not mixed
        chosen |= {"views": VIEWS, "mixup": 0.0, "cutmix": 0.0}
    elif stages is None and option.passes(stages) < FEW_PASSES:
        chosen |= {name: value for name, value in IN_FEW_PASSES.items() if _is_of_preset(settings, name)}
    if stages == 0:
        chosen |= {"unfreeze_every": None, "feature_weight": 0.0}  # neither reaches a head alone
    return BudgetPlan(TrainSettings.model_validate({**dict(settings), **chosen}), option.end_s, measured)


class _Option:
    """What there is time for at one size.

    Args:
        settings: of the run.
        measured: at that size.
        count: training images.
        held: validation images.
        spent_s: that have passed.
    """

    def __init__(self, settings: TrainSettings, measured: StepTimings, count: int, held: int, spent_s: float) -> None:
        assert settings.time_budget is not None
        self.measured, self.count, self.held, self.spent_s = measured, count, held, spent_s
        self.wanted = max(LEAST_PASSES * count, min(ENOUGH_IMAGES, MOST_PASSES * count))
        # Judged after the last step, by the exporter, and by the engine that is to serve.
        self.end_s = settings.time_budget - EXPORT_S - 3 * held * measured.forward
        self.features_s = (count + held) * measured.forward / FEATURES_SPEED + ENGINE_S

    def left_s(self, stages: int | None) -> float:
        """For steps, after all features are there."""
        more = VIEWS * self.features_s if stages else 0.0
        return self.end_s - self.spent_s - self.features_s - more - SOLVE_S_PER_IMAGE * self.count

    def fits(self, stages: int | None) -> bool:
        """Whether enough images can be seen."""
        return self.left_s(stages) > self.wanted * self._step_s(stages)

    def passes(self, stages: int | None) -> float:
        """Over the training images, that are expected."""
        return self.left_s(stages) / (self.count * self._step_s(stages) + self.held * self.measured.forward)

    def epochs(self, stages: int | None) -> int:
        """More than are expected: time ends the run, unless so many would be too many."""
        if stages == 0:
            return 1
        most = min(MOST_EPOCHS, 2 + int(1.5 * self.passes(stages)))
        return most if stages is None else max(most, 2 * VIEWS + 1)  # for features to be used at least twice

    def _step_s(self, stages: int | None) -> float:
        return {None: self.measured.whole, 0: 0.0}.get(stages, self.measured.few)


def _is_of_preset(settings: TrainSettings, name: str) -> bool:
    """Whether a setting is what its preset makes it, so that nobody has asked for it."""
    default = TrainSettings.model_fields[name].default
    return bool(getattr(settings, name) == PRESETS[settings.preset].get(name, default))


def measure(settings: TrainSettings, images: ImageSet, size: int, device: torch.device) -> StepTimings:
    """Time a few steps on noise, and the decoding of a few images."""
    at_size = settings.model_copy(update={"image_size": size, "pretrained": False, "weights": None, "ema": None})
    network = backbone.build(at_size, len(images.labels))
    training = images.part("train")
    counts = Counter(sample.label for sample in training)
    learner = Learner(network, at_size, network.preprocessing, images.labels, counts, device)
    dataset = ImageDataset(images, training, network.preprocessing, augment.build(settings, size), settings.seed)
    decode_s = _seconds(lambda: [dataset[Item(0, sample)] for sample in range(min(32, len(training)))], 1)
    shared = decode_s / min(32, len(training)) / allowed_cores()
    few = min(FEW_STAGES, len(network.stages) - 1)
    whole_s = _step_s(learner, None, (3, size, size)) + shared
    split_point = find_split_point(network, few, size)
    few_s = _step_s(learner, few, split_point.shape, split_point) if split_point is not None else whole_s
    noise = torch.rand(min(32, settings.batch_size), 3, size, size, device=device)

    def forward() -> None:
        with torch.inference_mode():
            network.model(noise.to(memory_format=torch.channels_last))
            _wait(device)

    network.model.eval()
    return StepTimings(size, _seconds(forward) / len(noise) + shared, whole_s, few_s)


def _step_s(learner: Learner, stages: int | None, shape: tuple[int, ...], split_point: Any = None) -> float:
    """Seconds that an image takes in a step."""
    images = min(64, learner.settings.batch_size)
    learner.enter(Phase(f"measured {stages}", 0, 1, stages, shape[-1] if split_point is None else None), split_point)
    taken = _seconds(lambda: learner.trial_steps().run(images))
    return taken / images


def _seconds(work: Any, rounds: int = 3) -> float:
    """The median of some rounds after one that warms up."""
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:] if rounds > 1 else taken))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sizes(settings: TrainSettings, images: ImageSet) -> list[int]:
    """Pixels a side to consider, the largest first."""
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
    """Pixels, the median over some of the images."""
    samples = images.part("train")
    sides = []
    for sample in samples[:: max(1, len(samples) // 50)]:
        try:
            sides.append(min(decoded_size(images.file(sample))))
        except ImageError:
            continue
    return int(np.median(sides)) if sides else 224
