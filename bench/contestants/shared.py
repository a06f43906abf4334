"""Common parts of the contestants built on torch: network, weights, images, and the final accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode

from contestants.task import MEAN, STD, Task


def network(task: Task) -> Any:
    """timm's network with the task's weights, all layers trainable: float (N, 3, S, S) → logits (N, C)."""
    model = timm.create_model(task.model, num_classes=len(task.classes))
    model.load_state_dict(load_file(Path(task.weights) / "model.safetensors"))
    return model


def folder(task: Task, part: Literal["train", "val"]) -> ImageFolder:
    """A part as torchvision reads it: squashed, for training also flipped, normalised to float32 (3, S, S)."""
    size = (task.image_size, task.image_size)
    flip = [transforms.RandomHorizontalFlip()] if part == "train" else []
    steps = [
        transforms.Resize(size, InterpolationMode.BICUBIC),
        *flip,
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    return ImageFolder(task.folder(part), transforms.Compose(steps))


@torch.inference_mode()
def accuracy(model: nn.Module, task: Task) -> float:
    """Accuracy on the validation part in full precision, computed alike for all, off the clock."""
    model.eval()
    dataset = folder(task, "val")
    correct = 0
    for images, labels in DataLoader(dataset, batch_size=64):
        correct += int((model(images.to(task.device)).argmax(1).cpu() == labels).sum())
    return correct / len(dataset)
