"""Out-of-memory advice: what fits where not even one chunk does, such as a smaller image or network; each is tried."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.training import optimizer
from lensmith.training.learner import Learner
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.attempt import set_checkpointing
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread
from lensmith.training.models import zoo

SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)
"""Shares of the image size that are tried, from the largest down."""

GRID = 32
"""Image sizes are multiples of these pixels, since networks halve images five times."""

MODELS = 4
"""Number of smaller networks that are tried."""


@dataclass(frozen=True)
class Advice:
    """The remedy of an out-of-memory error: a sentence, and the settings in it, by name; none where nothing fits."""

    sentence: str
    settings: dict[str, Any] = field(default_factory=dict)


def what_fits(learner: Learner, settings: TrainSettings, classes: int) -> Advice:
    """Advice for the out-of-memory error of a learner whose smallest chunk did not fit."""
    learner.optimizer.zero_grad(set_to_none=True)
    memory.release(learner.device)
    with memory.MemoryCap(learner.device, settings.memory_fraction):
        strict: dict[str, Any] = {"checkpointing": "auto"} if settings.checkpointing == "never" else {}
        strict |= {"min_chunk": 1} if settings.min_chunk > 1 else {}
        if strict and _fits(learner.model, learner, learner.image_size):
            flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in strict.items())
            return Advice(f"Fewer images at once, with all savings, fit: {flags}.", strict)
        for size in _smaller_sizes(learner.image_size):
            if _fits(learner.model, learner, size):
                return Advice(f"Images of {size} px fit: --image-size {size}.", {"image_size": size})
        for name in _smaller_models(settings.model):
            model = timm.create_model(name, pretrained=False, num_classes=classes).to(learner.device)
            if _fits(model, learner, learner.image_size):
                return Advice(f"{name} fits: --model {name}.", {"model": name})
            del model
            memory.release(learner.device)
    more = "a machine with more memory" if settings.memory_fraction is None else "a larger --memory-fraction"
    return Advice(f"No smaller image or network of its family was found to fit; use {more}.")


def _fits(model: nn.Module, learner: Learner, size: int) -> bool:
    """Whether one image of `size` pixels a side goes forward and back with all savings and the optimizer's state."""
    try:
        in_healthy_thread(lambda: _take_one(model, learner, size))
        fits = True
    except (AssertionError, RuntimeError, MemoryError):  # too large, or a network that takes one size only
        fits = False
    model.zero_grad(set_to_none=True)
    if not fits:
        memory.release(learner.device)
    return fits


def _take_one(model: nn.Module, learner: Learner, size: int) -> None:
    set_checkpointing(model, True)
    # Memory also holds the batch, decoded and as floats, and on a CPU what validation prefetches.
    images = max(2 * learner.settings.step_images, 4 * learner.settings.batch_size)
    batch = torch.zeros(images, 3, size, size, device=learner.device)
    model.eval()(batch[:1].clone()).square().mean().backward()
    if model is learner.model:
        optimizer.allocate_state(learner.optimizer)


def _smaller_sizes(size: int) -> list[int]:
    sizes = {int(size * share) // GRID * GRID for share in SHARES}
    return sorted((smaller for smaller in sizes if GRID <= smaller < size), reverse=True)


def _smaller_models(name: str) -> Iterator[str]:
    """Networks of the same module of timm with fewer parameters, the largest first, each less than 0.7 of the last."""
    own = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    parameters, found = zoo.count_parameters(name) / 1e6, 0
    family = [other for other in zoo.find() if other.family == own]
    for other in sorted(family, key=lambda backbone: -backbone.params_millions):
        if other.params_millions < 0.7 * parameters and found < MODELS:
            parameters, found = other.params_millions, found + 1
            yield other.name
