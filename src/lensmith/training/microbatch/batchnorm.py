"""Ghost batch norm: BatchNorm that trains while a batch goes through the network in chunks.

Statistics of a whole batch cannot be computed chunk by chunk. So the batch is divided into *virtual batches* (of 32
images, say). Each is normalised by itself, whichever chunk it is in, and the running statistics move once a step, by
the mean over all virtual batches. The result does not depend on the number of chunks as long as each chunk is made of
whole virtual batches; a chunk smaller than one changes it.

Source: Hoffer et al., Train longer, generalize better, 2017, for normalising by virtual batches.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def training_batchnorms(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that normalise by the current batch instead of by running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)]


_OWN = ("running_mean", "running_var", "momentum", "num_batches_tracked")
"""Attributes of a layer that are put aside while other buffers collect a step's statistics."""


@dataclass
class _StepStatistics:
    """A layer's statistics in this step, float32 (C,) each: means over the virtual batches so far."""

    mean: Tensor | None
    var: Tensor | None
    virtual_batches: int = 0


class GhostBatchNorm:
    """The BatchNorm layers of a network that are in training.

    A virtual batch of one image has no statistics: it is normalised by the running ones and moves nothing.

    Args:
        model: the network; its BatchNorm layers in training mode are taken, as they are now.
        group: the ranks whose images share statistics (SyncBatchNorm); None: each rank normalises by its own.
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
        self.layers = training_batchnorms(model)
        self.group = group
        self._sizes: Sequence[int] = ()
        self._counting = False
        self._synchronized = False
        self._own: dict[_BatchNorm, dict[str, Any]] = {}
        self._step = {
            layer: _StepStatistics(_like(layer.running_mean), _like(layer.running_var)) for layer in self.layers
        }

    @contextmanager
    def collecting(self, synchronized: bool = True) -> Iterator[None]:
        """Let forward passes inside the block collect statistics here and leave the network's running ones alone.

        Args:
            synchronized: whether all ranks take part, so that statistics can be shared; needs a `group`.
        """
        self._synchronized = synchronized and self.group is not None
        for layer, step in self._step.items():
            self._own[layer] = {name: getattr(layer, name) for name in _OWN}
            step.virtual_batches = 0
            if layer.running_mean is not None:
                mean = _tensor(step.mean)
                if (mean.device, mean.dtype) != (layer.running_mean.device, layer.running_mean.dtype):  # moved
                    step.mean, step.var = _like(layer.running_mean), _like(layer.running_var)
                layer.running_mean, layer.running_var, layer.num_batches_tracked = step.mean, step.var, None
            layer.forward = functools.partial(self._forward, layer)  # type: ignore[method-assign]
        # A layer multiplies what was there by 0 before it adds, and 0 × NaN is NaN: so the buffers are cleared.
        if tracked := self._tracked():
            torch._foreach_zero_([_tensor(buffer) for _, step in tracked for buffer in (step.mean, step.var)])
        try:
            yield
        finally:
            for layer, own in self._own.items():
                del layer.forward
                for name, value in own.items():
                    setattr(layer, name, value)
            self._own = {}

    @contextmanager
    def chunk(self, sizes: Sequence[int]) -> Iterator[None]:
        """Count the forward pass of virtual batches of `sizes` images; the backward pass stays outside the block.

        Activation checkpointing repeats forward passes on the way back, which must not be counted.
        """
        self._sizes, self._counting = sizes, True
        try:
            yield
        finally:
            self._counting = False

    def sums(self) -> list[Tensor]:
        """The statistics summed over the virtual batches so far, for ranks to add up.

        Returns:
            Two of float32 (C,) for each layer with running statistics: means, then variances.
        """
        tracked = self._tracked()
        means = [_tensor(buffer) for _, step in tracked for buffer in (step.mean, step.var)]
        counts = [float(step.virtual_batches) for _, step in tracked for _ in range(2)]
        return list(torch._foreach_mul(means, counts)) if means else []

    def counts(self) -> list[int]:
        """Virtual batches that went through each layer with running statistics; 0 where the step bypassed it."""
        return [step.virtual_batches for _, step in self._tracked()]

    @torch.no_grad()
    def commit(self, sums: Sequence[Tensor], counts: Sequence[int]) -> None:
        """Move the network's running statistics once, by the mean over all virtual batches.

        Args:
            sums: float32 (C,) each: the result of `sums`, added up over the ranks.
            counts: the result of `counts`, added up over the ranks.
        """
        seen = [number for number, count in enumerate(counts) if count]
        if not seen:
            return
        tracked = self._tracked()
        layers = [tracked[number][0] for number in seen]
        if batches := [layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None]:
            torch._foreach_add_(batches, 1)
        weights = [
            layer.momentum if layer.momentum is not None else 1.0 / float(_tensor(layer.num_batches_tracked))
            for layer in layers
        ]
        # All layers in a few kernels, where a GPU would wait for hundreds of small ones.
        pairs = [sums[index] for number in seen for index in (2 * number, 2 * number + 1)]
        means = torch._foreach_div(pairs, [float(counts[number]) for number in seen for _ in range(2)])
        running = [_tensor(buffer) for layer in layers for buffer in (layer.running_mean, layer.running_var)]
        torch._foreach_lerp_(running, means, [weight for weight in weights for _ in range(2)])

    def _tracked(self) -> list[tuple[_BatchNorm, _StepStatistics]]:
        """The layers with running statistics."""
        return [(layer, step) for layer, step in self._step.items() if step.mean is not None]

    def _forward(self, layer: _BatchNorm, x: Tensor) -> Tensor:
        per_image, rest = divmod(len(x), sum(self._sizes))
        # Some networks fold other axes into the first one; rows that belong to no single image are one virtual batch.
        # A single virtual batch is not split either: the gradient of a split would be a copy.
        whole = rest or len(self._sizes) == 1
        parts = [x] if whole else list(torch.split(x, [size * per_image for size in self._sizes]))
        step, outputs = self._step[layer], []
        for part, size in zip(parts, self._sizes, strict=not rest):
            if size == 1 and not rest and not self._synchronized and step.mean is not None:
                own = self._own[layer]
                outputs.append(_normalised_by(layer, own["running_mean"], own["running_var"], part))
                continue
            # Momentum 1/n makes the buffer the mean over n virtual batches; 0 where checkpointing repeats a forward.
            step.virtual_batches += self._counting
            layer.momentum = 1.0 / step.virtual_batches if self._counting else 0.0
            outputs.append(
                self._normalised_by_all_ranks(layer, part) if self._synchronized else type(layer).forward(layer, part)
            )
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _normalised_by_all_ranks(self, layer: _BatchNorm, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor(float(x.numel() // x.shape[1]))
        dist.all_reduce(count, group=self.group)
        mean = _SumOverRanks.apply(wide.sum(axes), self.group) / count
        centred = wide - mean.view(shape)
        var = _SumOverRanks.apply(centred.square().sum(axes), self.group) / count
        normalised = centred * torch.rsqrt(var + layer.eps).view(shape)
        if layer.running_mean is not None:
            with torch.no_grad():
                layer.running_mean.lerp_(mean, layer.momentum or 0.0)
                _tensor(layer.running_var).lerp_(var * count / (count - 1).clamp(min=1), layer.momentum or 0.0)
        # Scale, shift and, in some subclasses, an activation remain: the layer applies them itself.
        return _normalised_by(
            layer, torch.zeros_like(mean), torch.full_like(var, 1 - layer.eps), normalised.to(x.dtype)
        )


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks, whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        """The sum over the ranks of a tensor of any float dtype and shape."""
        ctx.group = group
        summed = tensor.clone()
        dist.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The sum over the ranks of the gradient, of the input's float dtype and shape."""
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed, group=ctx.group)
        return summed, None


def _normalised_by(layer: _BatchNorm, mean: Tensor, var: Tensor, x: Tensor) -> Tensor:
    """The layer's own forward pass in evaluation mode, by the statistics given."""
    before = layer.running_mean, layer.running_var, layer.training
    layer.running_mean, layer.running_var, layer.training = mean, var, False
    try:
        output: Tensor = type(layer).forward(layer, x)
    finally:
        layer.running_mean, layer.running_var, layer.training = before
    return output


def _like(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else torch.empty_like(buffer)


def _tensor(buffer: Tensor | None) -> Tensor:
    assert buffer is not None  # of a layer with running statistics
    return buffer
