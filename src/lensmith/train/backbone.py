"""A timm backbone with a new head, and which of its parts learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from lensmith.config import TrainSettings
from lensmith.errors import ModelError, SettingsError
from lensmith.image import Preprocessing
from lensmith.train import weights, zoo


@dataclass(frozen=True)
class Network:
    """A network that is about to be trained.

    Attributes:
        model: float (N, 3, S, S) → logits (N, C).
        head: the part of it that is new.
        dropout: share of the features that is dropped before the head while it learns.
        preprocessing: what its weights expect of an image.
        provenance: where its weights come from, in words.
    """

    model: nn.Module
    head: nn.Module
    dropout: float
    preprocessing: Preprocessing
    provenance: str

    def freeze(self, backbone: bool, statistics: bool) -> None:
        """Say what learns.

        Args:
            backbone: the head alone learns. The backbone is put into evaluation mode, since its BatchNorm statistics
                would drift otherwise.
            statistics: BatchNorm keeps its running statistics, while its scale and shift learn. Then unfreezing
                changes no answer, and the batch size does not matter.
        """
        for parameter in self.model.parameters():
            parameter.requires_grad_(not backbone)
        for parameter in self.head.parameters():
            parameter.requires_grad_(True)
        self.model.train(not backbone)
        # timm applies the head's dropout at the root, or in a module beside the head; either must know of training.
        self.model.training = True
        for module in self.model.modules():
            if isinstance(module, nn.Dropout) and module.p == self.dropout:
                module.train()
        self.head.train()
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
    preprocessing = preprocessing_of(model, settings)
    if settings.weights is not None:
        provenance = weights.load_custom(model, settings.weights)
    elif settings.pretrained:
        provenance = weights.load_pretrained(model, settings.model, **_size(settings))
    else:
        provenance = "random"
    return Network(model, _new_head(model, classes), settings.dropout, preprocessing, provenance)


def rebuild(settings: TrainSettings, classes: int, state: dict[str, torch.Tensor]) -> nn.Module:
    """The trained network from a checkpoint's state dict, in evaluation mode."""
    model = _create(settings)
    _new_head(model, classes)
    model.load_state_dict(state)
    return model.eval()


def preprocessing_of(model: nn.Module, settings: TrainSettings) -> Preprocessing:
    """What the backbone was trained with, at the size and resize mode of the settings."""
    wants = resolve_model_data_config(model)
    return Preprocessing(
        image_size=settings.image_size or wants["input_size"][-1],
        resize=settings.resize,
        crop_fraction=wants["crop_pct"] if settings.resize == "crop" else 1.0,
        interpolation="bilinear" if wants["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(wants["mean"]),
        std=tuple(wants["std"]),
    )


def _create(settings: TrainSettings) -> nn.Module:
    name = settings.model
    if not zoo.known(name):
        near = ", ".join(zoo.nearest(name))
        raise ModelError(
            "The name of a timm backbone was expected.",
            f"{name!r} is none.",
            f"{f'Did you mean {near}? ' if near else ''}`lensmith models` lists them.",
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, drop_rate=settings.dropout, **_size(settings))
        if settings.image_size is not None:  # many tell only at the first picture whether it fits
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, settings.image_size, settings.image_size))
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise SettingsError(
            f"An image size that {name} can take was expected.",
            f"{settings.image_size} arrived ({reason}).",
            "Leave --image-size out to use the backbone's own.",
        ) from error
    return model


def _size(settings: TrainSettings) -> dict[str, int]:
    """Transformers with position embeddings are built for one size; convolutional networks take any."""
    cfg = timm.get_pretrained_cfg(settings.model)
    fixed = cfg is not None and cfg.fixed_input_size
    return {"img_size": settings.image_size} if fixed and settings.image_size else {}


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
