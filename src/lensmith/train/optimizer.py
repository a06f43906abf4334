"""The optimizer: four parameter groups from the start (head and backbone, with and without weight decay).

Freezing turns gradients off and leaves the groups as they are, so unfreezing never changes the optimizer's layout and
a checkpoint fits whatever the stage.
"""

from __future__ import annotations

import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.train.recipe import Plan


def build(model: nn.Module, head: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over all parameters; biases and normalisation weights do not decay."""
    of_head = {id(parameter) for parameter in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) not in of_head, parameter.ndim > 1), []).append(parameter)
    described = [
        {
            "params": parameters,
            "backbone": backbone,
            "peak": settings.lr * (settings.backbone_lr_ratio if backbone else 1.0),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (backbone, decays), parameters in sorted(groups.items())
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(described, lr=settings.lr, momentum=settings.momentum)
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.AdamW(described, lr=settings.lr, fused=on_gpu or None)


def set_rates(optimizer: torch.optim.Optimizer, plan: Plan, step: int) -> float:
    """Set every group's learning rate for a step; returns the head's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * plan.rate(step, backbone=group["backbone"])
    return max(float(group["lr"]) for group in optimizer.param_groups if not group["backbone"])
