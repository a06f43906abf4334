"""A timm backbone with a new head, and freezing: which of its stages are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import group_parameters
from torch import nn

from lensmith.config import TrainSettings
from lensmith.core.text import first_line
from lensmith.errors import ModelError, SettingsError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.microbatch import memory
from lensmith.training.models import weights, zoo


@dataclass(frozen=True)
class Network:
    """A network to be trained.

    Attributes:
        model: backbone and head, float (N, 3, S, S) → logits (N, C).
        head: the new layer, for the run's classes.
        stages: names of all parameters by stage: the head, the backbone's last stage, …, its first.
        preprocessing: preprocessing that the weights were trained with.
        provenance: origin of the weights, in words.
    """

    model: nn.Module
    head: nn.Module
    stages: tuple[tuple[str, ...], ...]
    preprocessing: Preprocessing
    provenance: str

    def freeze(self, trainable: int | None, statistics: bool) -> None:
        """Train the head and the last `trainable` stages of the backbone, and freeze the others.

        Frozen layers are put into evaluation mode: their BatchNorm statistics do not drift, and nothing is dropped.

        Args:
            trainable: number of stages; 0 for the head alone, None for all.
            statistics: whether BatchNorm's running statistics are frozen even where its scale and shift are trained.
                Then unfreezing changes no output, and the batch size does not matter.
        """
        learning = set().union(*self.stages[: None if trainable is None else trainable + 1])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in learning)
        _set_modes(self.model, trained=True)
        if statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def build(settings: TrainSettings, classes: int) -> Network:
    """Create the backbone, load its weights, and give it a new head for `classes` classes.

    Raises:
        ModelError: the name is unknown, or the weights cannot be loaded or do not fit.
        SettingsError: the backbone cannot take the image size.
    """
    model = _create(settings)
    if settings.weights is not None:
        provenance = weights.load_custom(model, settings.weights)
    elif settings.pretrained:
        provenance = weights.load_pretrained(model, settings.model, **_size(settings))
    else:
        provenance = "random"
    preprocessing = preprocessing_of(model, settings)  # now, since custom weights may bring theirs
    head = _new_head(model, classes)
    return Network(model, head, stages_of(model, head), preprocessing, provenance)


def rebuild(settings: TrainSettings, classes: int, state: dict[str, torch.Tensor]) -> nn.Module:
    """The trained network in evaluation mode, from a checkpoint's tensors by name, of any dtype and shape."""
    model = _create(settings)
    _new_head(model, classes)
    model.load_state_dict(state)
    return model.eval()


def count_parameters(settings: TrainSettings, classes: int) -> int:
    """Number of trainable parameters with a head for `classes` classes, counted without allocating them."""
    return zoo.count_parameters(settings.model, num_classes=classes, **_size(settings))


def preprocessing_of(model: nn.Module, settings: TrainSettings) -> Preprocessing:
    """Preprocessing that the backbone was trained with, at the image size and resize mode of the settings."""
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
    """Names of the model's parameters by stage, from the head to the stem.

    Stages are timm's coarse groups (stem, stage 1 … n). Old layers in the head's group, such as a last normalisation,
    belong to the last stage. A backbone that timm does not divide is one stage.
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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode during the block; afterwards each module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _set_modes(module: nn.Module, trained: bool) -> None:
    """Set training mode where a parameter inside is trained; modules without any (dropout) follow their parent."""
    parameters = list(module.parameters())
    module.training = any(parameter.requires_grad for parameter in parameters) if parameters else trained
    for child in module.children():
        _set_modes(child, module.training)


def _create(settings: TrainSettings) -> nn.Module:
    name = settings.model
    if not zoo.is_known(name):
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
            with torch.no_grad():  # many networks raise only at the first image
                model(torch.zeros(1, 3, tried, tried))
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        if memory.is_out_of_memory(error):  # training reports that with advice
            return model.eval()
        own, flag = "the backbone's own", "--image-size"
        if settings.sizes:
            own, flag = "one size, or choose a convolutional network, which takes any", "--sizes"
        raise SettingsError(
            f"An image size that {name} can take was expected.",
            f"{tried} arrived ({first_line(error)}).",
            f"Leave {flag} out to use {own}.",
        ) from error
    return model


def _size(settings: TrainSettings) -> dict[str, int]:
    """The image size as timm's option, for transformers with position embeddings, which are built for one."""
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
