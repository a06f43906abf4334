"""The optimizer: two parameter groups for each stage of the network, with and without weight decay.

Freezing turns gradients off and leaves the groups unchanged, so unfreezing never changes the optimizer's layout and a
checkpoint fits in any phase. The fused kernels change all weights in one call, or none.
"""

import math

import torch

from lensmith.config import TrainSettings
from lensmith.training.models.backbone import Network
from lensmith.training.schedule import TrainingSchedule


def build(network: Network, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make SGD, Adam or AdamW over all parameters; biases and normalisation weights do not decay.

    Each group carries `stage`, its number counted from the head, and `peak`, its highest rate.
    """
    groups = []
    parameters = dict(network.model.named_parameters())
    for stage, names in enumerate(network.stages):
        for decays in (False, True):
            members = [parameters[name] for name in names if (parameters[name].ndim > 1) == decays]
            if members:
                highest, decay = peak(settings, stage, len(network.stages) - 1), settings.weight_decay * decays
                groups.append({"params": members, "stage": stage, "peak": highest, "weight_decay": decay})
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.lr, fused=True)


def peak(settings: TrainSettings, stage: int, last: int) -> float:
    """The peak learning rate of a stage: the head's, or a share of it that falls geometrically to the first stage's.

    Args:
        settings: the run's settings.
        stage: 0 is the head, 1 the backbone's last stage.
        last: number of the backbone's first stage, the last in this count.
    """
    if stage == 0:
        return settings.lr
    near = settings.backbone_lr_ratio
    far = near if settings.first_lr_ratio is None else settings.first_lr_ratio
    return settings.lr * near * math.pow(far / near, (stage - 1) / max(1, last - 1))


def set_rates(optimizer: torch.optim.Optimizer, schedule: TrainingSchedule, step: int, factor: float = 1.0) -> None:
    """Set every group's learning rate for a 0-based step; `factor` is the share that plateaus have left, 0..1."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * schedule.rate(step, stage=group["stage"]) * factor


@torch.no_grad()
def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the state of every parameter that has a gradient, so that its first step needs no more memory.

    The optimizer itself would start with the same: zeros.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None or parameter in optimizer.state:
                continue
            if isinstance(optimizer, torch.optim.SGD):
                state = {"momentum_buffer": torch.zeros_like(parameter)} if group["momentum"] else {}
            else:
                state = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
                state |= {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = state  # only now, so that a failed try leaves no half of it
