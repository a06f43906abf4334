"""BatchNorm that keeps its statistics, as part of the convolution before it.

With statistics that do not change, γ (W∗x − μ) / σ + β is a convolution with weights W γ/σ and bias β − μ γ/σ. Going
through it that way spares a pass over the activations forward and several backward: gradients of γ and β follow from
those of the convolution's weights. It is the same function of the same parameters, up to rounding.

Depthwise convolutions, folded or not, go back as `depthwise` has it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from lensmith.training.models.depthwise import CONVOLUTIONS, can_hasten, convolve, hastened

_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


class BatchNormFolding:
    """Convolutions of a model with the BatchNorm that comes after them.

    Args:
        model: its modules' `forward` is changed while folded; parameters, buffers and state dict are as they were.
        image_size: S of pictures that show what comes after what.
    """

    def __init__(self, model: nn.Module, image_size: int) -> None:
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        on_cpu = next(model.parameters()).device.type == "cpu"
        self._depthwise = [module for module in model.modules() if on_cpu and can_hasten(module)]
        if any(type(module) in _NORMS for module in model.modules()):
            self._find(model, image_size)

    def fold(self) -> int:
        """Fold where BatchNorm is in evaluation mode now, and unfold elsewhere; returns how many are folded."""
        self.unfold()
        for conv in self._depthwise:
            object.__setattr__(conv, "forward", partial(hastened, cast(nn.Conv2d, conv)))
        folded = [(conv, norm) for conv, norm in self._pairs if not norm.training and norm.affine]
        for conv, norm in folded:
            object.__setattr__(conv, "forward", partial(_folded, conv, norm))
            object.__setattr__(norm, "forward", partial(_rest, norm))
        return len(folded)

    def _find(self, model: nn.Module, image_size: int) -> None:
        """Pairs without which the model answers differently are none: the convolution's output is used elsewhere."""
        first = next(model.parameters())
        noise = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        noise = noise.to(first.device, first.dtype)
        modes = {module: module.training for module in model.modules()}
        try:
            model.eval()
            with torch.inference_mode():
                self._pairs = _pairs(model, noise)
                right = model(noise)
                self.fold()
                if not torch.allclose(model(noise), right, rtol=1e-2, atol=1e-3 * float(right.abs().max())):
                    self.unfold()
                    self._pairs = []
        finally:
            self.unfold()
            for module, training in modes.items():
                module.training = training

    def unfold(self) -> None:
        """Put every module's own `forward` back."""
        for module in (*self._depthwise, *(module for pair in self._pairs for module in pair)):
            module.__dict__.pop("forward", None)


def _folded(conv: Any, norm: Any, x: Tensor) -> Tensor:
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return convolve(conv, x, conv.weight * scale.view(-1, 1, 1, 1), bias)


def _rest(norm: Any, x: Tensor) -> Tensor:
    """What a norm does besides."""
    return cast(Tensor, norm.act(norm.drop(x))) if isinstance(norm, BatchNormAct2d) else x


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions whose output is what a BatchNorm gets, each called once."""
    made: dict[int, nn.Module] = {}
    kept: list[Tensor] = []  # so that no other tensor gets the number of one that is gone
    pairs: list[tuple[nn.Module, nn.Module]] = []
    calls: dict[nn.Module, int] = {}

    def after(module: nn.Module, inputs: Any, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if type(module) in _NORMS and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])], module))
        elif type(module) in CONVOLUTIONS:
            made[id(output)] = module
            kept.append(output)

    hooks = [one.register_forward_hook(after) for one in model.modules() if type(one) in (*_NORMS, *CONVOLUTIONS)]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if all(calls[module] == 1 for module in pair)]
