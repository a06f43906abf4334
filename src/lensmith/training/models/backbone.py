"""A timm backbone with a new head, its stages, and which of them learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import group_parameters
from torch import nn

from lensmith.config import TrainSettings
from lensmith.errors import ModelError, SettingsError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.microbatch import memory
from lensmith.training.models import weights, zoo


@dataclass(frozen=True)
class Network:
    """A network that is about to be trained.

    Attributes:
        model: float (N, 3, S, S) → logits (N, C).
        head: the part of it that is new.
        stages: names of all parameters, by stage, counted from the head: the head, the backbone's last stage, …, its
            first.
        preprocessing: what its weights expect of an image.
        provenance: where its weights come from, in words.
    """

    model: nn.Module
    head: nn.Module
    stages: tuple[tuple[str, ...], ...]
    preprocessing: Preprocessing
    provenance: str

    def freeze(self, trainable: int | None, statistics: bool) -> None:
        """Say what learns: the head, and the last `trainable` stages of the backbone.

        What does not learn is put into evaluation mode: its BatchNorm statistics would drift otherwise, and nothing is
        dropped in it.

        Args:
            trainable: 0 for the head alone, None for all.
            statistics: BatchNorm keeps its running statistics even where its scale and shift learn. Then unfreezing
                changes no answer, and the batch size does not matter.
        """
        learning = set().union(*self.stages[: None if trainable is None else trainable + 1])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in learning)
        _set_modes(self.model, learns=True)
        if statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def build(settings: TrainSettings, classes: int) -> Network:
    """Create the backbone, load its weights, and give it a new head for `classes` classes.

    Raises:
        ModelError: unknown name, or weights that cannot be had or do not fit.
        SettingsError: an image size that the backbone cannot take.
    """
    model = _create(settings)
    if settings.weights is not None:
        provenance = weights.load_custom(model, settings.weights)
    elif settings.pretrained:
        provenance = weights.load_pretrained(model, settings.model, **_size(settings))
    else:
        provenance = "random"
    preprocessing = preprocessing_of(model, settings)  # now, since weights of one's own may bring theirs
    head = _new_head(model, classes)
    return Network(model, head, stages_of(model, head), preprocessing, provenance)


def rebuild(settings: TrainSettings, classes: int, state: dict[str, torch.Tensor]) -> nn.Module:
    """The trained network from a checkpoint's state dict, in evaluation mode."""
    model = _create(settings)
    _new_head(model, classes)
    model.load_state_dict(state)
    return model.eval()


def count_parameters(settings: TrainSettings, classes: int) -> int:
    """Numbers that can learn, with the head for `classes` classes; counted without memory behind them."""
    with torch.device("meta"):
        model = timm.create_model(settings.model, pretrained=False, num_classes=classes, **_size(settings))
    return sum(parameter.numel() for parameter in model.parameters())


def preprocessing_of(model: nn.Module, settings: TrainSettings) -> Preprocessing:
    """What the backbone was trained with, at the size and resize mode of the settings."""
    wants = resolve_model_data_config(model)
    return Preprocessing(
        image_size=settings.model_size or wants["input_size"][-1],
        resize=settings.resize,
        crop_fraction=wants["crop_pct"] if settings.resize == "crop" else 1.0,
        interpolation="bilinear" if wants["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(wants["mean"]),
        std=tuple(wants["std"]),
    )


def stages_of(model: Any, head: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Names of the model's parameters by stage, counted from the head.

    Stages are timm's coarse groups (stem, stage 1 … n). What it counts to the head's group but is not new, such as a
    last normalisation, belongs to the last stage. A backbone that timm does not divide is one stage.
    """
    try:
        number: dict[str, int] = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    except (AttributeError, AssertionError):
        number = {}
    of_head = {id(parameter) for parameter in head.parameters()}
    new = tuple(name for name, parameter in model.named_parameters() if id(parameter) in of_head)
    old = [name for name, _ in model.named_parameters() if name not in new]
    top = min((number[name] for name in new if name in number), default=len(number) + 1)
    last = max((number[name] for name in old if number.get(name, top) < top), default=0)
    stages: dict[int, list[str]] = {}
    for name in old:
        stages.setdefault(min(last, number.get(name, last)), []).append(name)
    return (new, *(tuple(stages[stage]) for stage in sorted(stages, reverse=True)))


def _set_modes(module: nn.Module, learns: bool) -> None:
    """Training mode where a parameter below learns; what has none (dropout, activations) goes with what it is in."""
    parameters = list(module.parameters())
    module.training = any(parameter.requires_grad for parameter in parameters) if parameters else learns
    for child in module.children():
        _set_modes(child, module.training)


def _create(settings: TrainSettings) -> nn.Module:
    name = settings.model
    if not zoo.known(name):
        near = ", ".join(zoo.nearest(name))
        raise ModelError(
            "The name of a timm backbone was expected.",
            f"{name!r} is none.",
            f"{f'Did you mean {near}? ' if near else ''}`lensmith models` lists them.",
        )
    tried = settings.model_size
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, drop_rate=settings.dropout, **_size(settings))
        model.eval()
        for tried in settings.sizes or filter(None, (settings.image_size,)):
            with torch.no_grad():  # many tell only at the first picture whether it fits
                model(torch.zeros(1, 3, tried, tried))
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        if memory.is_out_of_memory(error):  # the loop knows what to say of that
            return model.eval()
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        own, flag = "the backbone's own", "--image-size"
        if settings.sizes:
            own, flag = "one size, or choose a convolutional network, which takes any", "--sizes"
        raise SettingsError(
            f"An image size that {name} can take was expected.",
            f"{tried} arrived ({reason}).",
            f"Leave {flag} out to use {own}.",
        ) from error
    return model


def _size(settings: TrainSettings) -> dict[str, int]:
    """Transformers with position embeddings are built for one size; convolutional networks take any."""
    cfg = timm.get_pretrained_cfg(settings.model)
    fixed = cfg is not None and cfg.fixed_input_size
    return {"img_size": settings.model_size} if fixed and settings.model_size else {}


def _new_head(model: Any, classes: int) -> nn.Module:
    model.reset_classifier(classes)
    head = model.get_classifier()
    if not isinstance(head, nn.Module) or not any(True for _ in head.parameters()):
        raise ModelError(
            "A backbone with one classification head was expected.",
            f"{type(model).__name__} has {'several' if isinstance(head, tuple) else 'none'}.",
            "Choose another; `lensmith models` lists them.",
        )
    return head
