"""Fast backward pass of depthwise convolutions on CPUs.

For some of their gradients oneDNN (3.12, as in torch 2.14) has no depthwise kernel, and uses one for groups of
channels, which pads each channel to 16: for the input's gradient in bfloat16 where the stride is more than 1, and for
the weight's gradient where the kernel is wider than 3 or the image smaller than the kernel. Those take 2 to 100 times
as long as the forward pass. Here the same numbers come from kernels that it has. The forward pass is unchanged.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)

WIDEST = 3
"""Widest kernel for whose weight gradient oneDNN has a depthwise kernel."""

Pair = tuple[int, int]


def is_supported(module: nn.Module) -> bool:
    """Whether the module is a depthwise convolution whose gradients can be computed here."""
    if not isinstance(module, nn.Conv2d) or type(module) not in CONVOLUTIONS or isinstance(module.padding, str):
        return False
    depthwise = module.groups == module.in_channels == module.out_channels != 1
    padded = all(padding < size for padding, size in zip(module.padding, module.kernel_size, strict=True))
    return depthwise and padded and module.padding_mode == "zeros" and module.dilation == (1, 1)


def forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution's `forward` with the fast backward pass: float (N, C, H, W) → (N, C, H', W')."""
    return convolve(conv, x, conv.weight, conv.bias)


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a convolution with another weight and bias, and with the fast backward pass where it is supported.

    Args:
        conv: a convolution of one of the types CONVOLUTIONS.
        x: input, float (N, C, H, W).
        weight: float (D, C / groups, K, L).
        bias: float (D,), or None.
    """
    if type(conv) is Conv2dSame:
        x = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    else:
        dtype = x.dtype
    stride = cast(Pair, conv.stride)
    slow = _slow_for_input(dtype, stride) or _slow_for_weight(x, weight)
    if not slow or x.device.type != "cpu" or not torch.is_grad_enabled() or not is_supported(conv):
        return cast(Tensor, conv._conv_forward(x, weight, bias))
    given = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return cast(Tensor, _Depthwise.apply(*given, stride, conv.padding))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        """Convolve x float (N, C, H, W) with weight (C, 1, K, L) and bias (C,)."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding  # type: ignore[attr-defined]
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Gradients of input, weight and bias from that of the output, float (N, C, H', W')."""
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x = input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if wanted[0] else None
        of_weight = weight_gradient(gradient, x, weight, ctx.stride, ctx.padding) if wanted[1] else None
        return of_x, of_weight, gradient.sum((0, 2, 3)) if wanted[2] else None, None, None


def _slow_for_input(dtype: torch.dtype, stride: Pair) -> bool:
    return max(stride) > 1 and dtype != torch.float32


def _slow_for_weight(x: Tensor, weight: Tensor) -> bool:
    down, across = weight.shape[2:]
    return across > WIDEST or x.shape[2] < down or x.shape[3] < across


def input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Gradient of a depthwise convolution's input, of the dtype and shape of `x`.

    With a stride, and not in float32, it is a forward pass of stride 1 with the kernel flipped, over the output's
    gradient with zeros between its numbers.

    Args:
        gradient: gradient of the output, float (N, C, H', W').
        x: input, float (N, C, H, W).
        weight: float (C, 1, K, L).
        stride: steps down and across, in pixels.
        padding: pixels above and to the left; less than K and L.
    """
    if not _slow_for_input(x.dtype, stride):
        return _native(gradient, x, weight, stride, padding, 0)
    images, channels, height, width = x.shape
    down, across = weight.shape[2:]
    spread = torch.empty(
        (images, channels, height + down - 1, width + across - 1), dtype=gradient.dtype, device=gradient.device,
        memory_format=torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None,
    ).zero_()  # fmt: skip
    top, left = down - 1 - padding[0], across - 1 - padding[1]
    bottom, right = top + stride[0] * gradient.shape[2], left + stride[1] * gradient.shape[3]
    spread[:, :, top : bottom : stride[0], left : right : stride[1]] = gradient
    return F.conv2d(spread, weight.flip(2, 3), groups=channels)


def weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Gradient of a depthwise convolution's weight, of its dtype and shape, for some columns of the kernel at a time.

    Each piece is the gradient of a narrower kernel over the columns of the input that it sees. An image smaller than
    the kernel is padded with zeros first.

    Args:
        gradient: gradient of the output, float (N, C, H', W').
        x: input, float (N, C, H, W).
        weight: float (C, 1, K, L).
        stride: steps down and across, in pixels.
        padding: pixels above and to the left; less than K and L.
    """
    if not _slow_for_weight(x, weight):
        return _native(gradient, x, weight, stride, padding, 1)
    (height, width), (down, across) = x.shape[2:], weight.shape[2:]
    above = padding[0] if height < down else 0
    below = max(0, (gradient.shape[2] - 1) * stride[0] + down - above - height) if above else 0
    pieces = []
    for first in range(0, across, WIDEST):
        columns = min(WIDEST, across - first)
        needed = (gradient.shape[3] - 1) * stride[1] + columns
        left = max(-width, min(padding[1] - first, needed))  # bounds for a piece that sees only zeros
        seen = F.pad(x, (left, needed - left - width, above, below))
        narrow = weight[..., first : first + columns]
        pieces.append(_native(gradient, seen, narrow, stride, (padding[0] - above, 0), 1))
    return torch.cat(pieces, 3)


def _native(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, which: int) -> Tensor:
    """torch's own gradient of the input (0) or the weights (1)."""
    wanted = [which == 0, which == 1, False]
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
    return cast(Tensor, found[which])
