"""BatchNorm that learns while a batch goes through the network in chunks.

Statistics of the whole batch cannot be had chunk by chunk. So a batch is divided into *tiles* (say of 32 images), each
is normalised by itself wherever it stands, and the running statistics move once a step, by the mean over the tiles. A
chunk of whole tiles then gives the same result however many there are. A chunk smaller than a tile cannot.
"""

from __future__ import annotations

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
    """The BatchNorm layers that normalise by what goes through them, and not by statistics of before."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)]


@dataclass
class _Own:
    """What belongs to the network while others stand in its place."""

    mean: Tensor | None
    var: Tensor | None
    momentum: float | None
    batches: Tensor | None


@dataclass
class _Found:
    """Means over the tiles that went through a layer in this step."""

    mean: Tensor | None
    var: Tensor | None
    tiles: int = 0


class GhostBatchNorm:
    """The BatchNorm layers of a network that learn their statistics.

    A tile of one image has no statistics to learn from: it is normalised by the running ones and counts for nothing.

    Args:
        model: its layers in training mode are taken, as they are now.
        group: with it, a chunk's statistics are those of all ranks together (SyncBatchNorm).
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
        self.layers = training_batchnorms(model)
        self.group = group
        self._sizes: Sequence[int] = ()
        self._counting = False
        self._own: dict[_BatchNorm, _Own] = {}
        self._found = {norm: _Found(_like(norm.running_mean), _like(norm.running_var)) for norm in self.layers}

    @contextmanager
    def collecting(self, together: bool = True) -> Iterator[None]:
        """Inside, forward passes move statistics kept here and leave those of the network alone.

        Args:
            together: False where the ranks cannot all take part this time.
        """
        self._together = together and self.group is not None
        for norm, found in self._found.items():
            self._own[norm] = _Own(norm.running_mean, norm.running_var, norm.momentum, norm.num_batches_tracked)
            found.tiles = 0
            if norm.running_mean is not None:
                if not _alike(_tensor(found.mean), norm.running_mean):  # the network was moved
                    found.mean, found.var = _like(norm.running_mean), _like(norm.running_var)
                norm.running_mean, norm.running_var, norm.num_batches_tracked = found.mean, found.var, None
            norm.forward = functools.partial(self._forward, norm)  # type: ignore[method-assign]
        # A layer's own arithmetic keeps 0 × what was there before, which is not 0 after a step that was no number.
        if moving := self._moving():
            torch._foreach_zero_([_tensor(kept) for _, found in moving for kept in (found.mean, found.var)])
        try:
            yield
        finally:
            for norm, own in self._own.items():
                del norm.forward
                norm.running_mean, norm.running_var = own.mean, own.var
                norm.momentum, norm.num_batches_tracked = own.momentum, own.batches
            self._own = {}

    @contextmanager
    def chunk(self, tiles: Sequence[int]) -> Iterator[None]:
        """Around the forward pass of a chunk made of `tiles` images each; backward, where some of it may run again
        (checkpointing), stays outside.
        """
        self._sizes, self._counting = tiles, True
        try:
            yield
        finally:
            self._counting = False

    def sums(self) -> list[Tensor]:
        """Over the tiles done, the sums of their means and variances, layer by layer: what ranks may add up."""
        moving = self._moving()
        kept = [_tensor(statistic) for _, found in moving for statistic in (found.mean, found.var)]
        tiles = [float(found.tiles) for _, found in moving for _ in range(2)]
        return list(torch._foreach_mul(kept, tiles)) if kept else []

    def counts(self) -> list[int]:
        """How many tiles each of these layers has seen: none where this step did not go through it."""
        return [found.tiles for _, found in self._moving()]

    @torch.no_grad()
    def commit(self, sums: Sequence[Tensor], counts: Sequence[int]) -> None:
        """Move the network's running statistics once, by the mean over all tiles.

        Args:
            sums: what `sums` returned, added up over the ranks.
            counts: what `counts` returned, added up over the ranks.
        """
        seen = [number for number, tiles in enumerate(counts) if tiles]
        if not seen:
            return
        moving = self._moving()
        norms = [moving[number][0] for number in seen]
        if batches := [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]:
            torch._foreach_add_(batches, 1)
        shares = [
            norm.momentum if norm.momentum is not None else 1.0 / float(_tensor(norm.num_batches_tracked))
            for norm in norms
        ]
        # All layers in a few kernels, where a GPU would wait for hundreds of small ones.
        pairs = [sums[place] for number in seen for place in (2 * number, 2 * number + 1)]
        means = torch._foreach_div(pairs, [float(counts[number]) for number in seen for _ in range(2)])
        running = [_tensor(buffer) for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        torch._foreach_lerp_(running, means, [share for share in shares for _ in range(2)])

    def _moving(self) -> list[tuple[_BatchNorm, _Found]]:
        """The layers that keep running statistics."""
        return [(norm, found) for norm, found in self._found.items() if found.mean is not None]

    def _forward(self, norm: _BatchNorm, x: Tensor) -> Tensor:
        per_image, rest = divmod(len(x), sum(self._sizes))
        # Some networks fold other axes into the first one; rows that belong to no single image are one tile.
        # One tile is not split either: back through a split the gradient would be copied.
        whole = rest or len(self._sizes) == 1
        tiles = [x] if whole else list(torch.split(x, [size * per_image for size in self._sizes]))
        found, answers = self._found[norm], []
        for tile, size in zip(tiles, self._sizes, strict=not rest):
            if size == 1 and not rest and not self._together and found.mean is not None:
                answers.append(self._by_running(norm, tile))
                continue
            # The mean over the tiles so far; and 0 where backward computes a checkpointed forward once more.
            found.tiles += self._counting
            norm.momentum = 1.0 / found.tiles if self._counting else 0.0
            answers.append(self._by_all_ranks(norm, tile) if self._together else type(norm).forward(norm, tile))
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _by_running(self, norm: _BatchNorm, x: Tensor) -> Tensor:
        own = self._own[norm]
        return _normalised_by(norm, _tensor(own.mean), _tensor(own.var), x)

    def _by_all_ranks(self, norm: _BatchNorm, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor(float(x.numel() // x.shape[1]))
        dist.all_reduce(count, group=self.group)
        mean = _Sum.apply(wide.sum(axes), self.group) / count
        centred = wide - mean.view(shape)
        var = _Sum.apply(centred.square().sum(axes), self.group) / count
        normalised = centred * torch.rsqrt(var + norm.eps).view(shape)
        if norm.running_mean is not None:
            with torch.no_grad():
                norm.running_mean.lerp_(mean, norm.momentum or 0.0)
                _tensor(norm.running_var).lerp_(var * count / (count - 1).clamp(min=1), norm.momentum or 0.0)
        # What is left to do (scale, shift, an activation in some subclasses) the layer does itself.
        return _normalised_by(norm, torch.zeros_like(mean), torch.full_like(var, 1 - norm.eps), normalised.to(x.dtype))


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        summed = tensor.clone()
        dist.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed, group=ctx.group)
        return summed, None


def _normalised_by(norm: _BatchNorm, mean: Tensor, var: Tensor, x: Tensor) -> Tensor:
    """The layer's own forward pass in evaluation mode, by the statistics given."""
    kept = norm.running_mean, norm.running_var, norm.training
    norm.running_mean, norm.running_var, norm.training = mean, var, False
    try:
        answer: Tensor = type(norm).forward(norm, x)
    finally:
        norm.running_mean, norm.running_var, norm.training = kept
    return answer


def _like(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else torch.empty_like(buffer)


def _alike(first: Tensor, second: Tensor) -> bool:
    return first.device == second.device and first.dtype == second.dtype


def _tensor(buffer: Tensor | None) -> Tensor:
    assert buffer is not None  # of a layer that keeps running statistics
    return buffer
