"""BatchNorm folding: frozen BatchNorm as part of the convolution before it.

With frozen statistics, γ (W∗x − μ) / σ + β is a convolution with weight W γ/σ and bias β − μ γ/σ. That saves a pass
over the activations in the forward pass and several in the backward pass: gradients of γ and β follow from those of
the convolution's weight. It is the same function of the same parameters, up to rounding.

Depthwise convolutions, folded or not, get the backward pass of `depthwise`.
"""

from functools import partial
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from lensmith.training.microbatch.memory import is_out_of_memory
from lensmith.training.models import depthwise
from lensmith.training.models.backbone import evaluating
from lensmith.training.models.depthwise import CONVOLUTIONS, convolve

_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


class BatchNormFolding:
    """Convolutions of a model, each with the BatchNorm that follows it.

    Args:
        model: the network; folding changes its modules' `forward`, but no parameters, buffers or state dict.
        image_size: pixels a side of the noise that is used to find the pairs.
    """

    def __init__(self, model: nn.Module, image_size: int) -> None:
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        on_cpu = next(model.parameters()).device.type == "cpu"
        self._depthwise = [module for module in model.modules() if on_cpu and depthwise.is_supported(module)]
        if any(type(module) in _NORMS for module in model.modules()):
            try:
                self._find(model, image_size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._pairs = []  # folding saves memory later, but finding the pairs takes two images at once

    def fold(self) -> int:
        """Fold BatchNorm layers that are in evaluation mode now, and unfold the others; returns the number folded."""
        self.unfold()
        for conv in self._depthwise:
            object.__setattr__(conv, "forward", partial(depthwise.forward, cast(nn.Conv2d, conv)))
        folded = [(conv, norm) for conv, norm in self._pairs if not norm.training and norm.affine]
        for conv, norm in folded:
            object.__setattr__(conv, "forward", partial(_folded, conv, norm))
            object.__setattr__(norm, "forward", partial(_rest, norm))
        return len(folded)

    def _find(self, model: nn.Module, image_size: int) -> None:
        """Find pairs, and drop them if folding changes the output, as where a convolution's output is used twice."""
        first = next(model.parameters())
        noise = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        noise = noise.to(first.device, first.dtype)
        with evaluating(model), torch.inference_mode():
            self._pairs = _pairs(model, noise)
            expected = model(noise)
            self.fold()
            try:
                found = model(noise)
            finally:
                self.unfold()
            if not torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
                self._pairs = []

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
    """The rest of a folded norm: the activation and dropout of timm's BatchNormAct2d."""
    return cast(Tensor, norm.act(norm.drop(x))) if isinstance(norm, BatchNormAct2d) else x


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions with the BatchNorm that takes their output, each called once."""
    made: dict[int, nn.Module] = {}
    outputs: list[Tensor] = []  # retained, so that no other tensor gets the id of one that was freed
    pairs: list[tuple[nn.Module, nn.Module]] = []
    calls: dict[nn.Module, int] = {}

    def after(module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Note a module's output, float (N, C, H, W), and whether a convolution made its input."""
        calls[module] = calls.get(module, 0) + 1
        if type(module) in _NORMS and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])], module))
        elif type(module) in CONVOLUTIONS:
            made[id(output)] = module
            outputs.append(output)

    hooks = [one.register_forward_hook(after) for one in model.modules() if type(one) in (*_NORMS, *CONVOLUTIONS)]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if all(calls[module] == 1 for module in pair)]
