"""EMA: an exponential moving average of the weights, which is evaluated and exported in the place of the weights."""

from timm.utils import ModelEmaV3
from torch import nn


def exponential_moving_average(model: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """A moving average (EMA) of a model's weights and buffers; None without a decay.

    The decay warms up, 1 - (1 + step) ** (-2/3) at most, so that the first weights are soon forgotten.

    Args:
        model: the network that trains; its copy holds the average.
        decay: share of the average that stays at each step, 0..1.
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None


def evaluated(model: nn.Module, average: ModelEmaV3 | None) -> nn.Module:
    """The network that is validated, saved as the best and exported: the average where there is one."""
    if average is None:
        return model
    module: nn.Module = average.module
    return module


def restart(average: ModelEmaV3 | None, model: nn.Module) -> None:
    """Set the average to the model's present weights, as after its head was solved for."""
    if average is not None:
        average.module.load_state_dict(model.state_dict())
