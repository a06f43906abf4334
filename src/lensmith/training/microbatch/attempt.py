"""One try at a step: forward and back in chunks, undone without a trace or committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.training.microbatch import memory
from lensmith.training.microbatch.batchnorm import GhostBatchNorm
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread
from lensmith.training.microbatch.rng_state import random_state, set_random_state

Loss = Callable[..., Tensor | tuple[Tensor, Tensor]]
"""A chunk of each tensor of the batch → the SUM of its losses; and sums of one's own, added up over the chunks."""


class StepVerdict(IntEnum):
    """What ranks vote at the end of a step; the largest counts."""

    FINE = 0
    SAVE = 1
    STOP = 2
    NOT_A_NUMBER = 3
    OUT_OF_MEMORY = 4
    FAILED = 5


@dataclass(frozen=True)
class StepInputs:
    """What is to be done.

    Attributes:
        batch: tensors with the same first dimension.
        chunks: how it is cut: for each chunk its tiles' sizes.
        total: sum of all ranks' sample weights, which the sum of losses is divided by.
        checkpointing: compute activations again instead of keeping them.
        together: BatchNorm's statistics are those of all ranks.
        loss: see `Loss`.
        scale: of a gradient scaler.
        claim: takes memory that will be needed after the vote.
        refuse_nan: look whether the loss is finite.
    """

    batch: Sequence[Tensor]
    chunks: Sequence[Sequence[int]]
    total: float
    checkpointing: bool
    together: bool
    loss: Loss
    scale: Callable[[Tensor], Tensor]
    claim: Callable[[], None]
    refuse_nan: bool


class StepAttempt:
    """Runs when it is made; whatever happens stands in `ballot`, and no exception is kept that would pin tensors.

    Attributes:
        ballot: what this rank votes.
        problem: what memory ran out of, in words.
        error: what else went wrong.
        loss: float64 scalar, see `Outcome`.
        sums: see `Outcome`.
    """

    def __init__(self, model: nn.Module, tiles: GhostBatchNorm, world: World, work: StepInputs) -> None:
        self.model, self.batchnorm, self.world = model, tiles, world
        self.device = device_of(model)
        self.ballot = StepVerdict.FINE
        self.problem: str | None = None
        self.error: Exception | None = None
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.sums: Tensor | None = None
        # Gradients from before are set aside, so that this step's can be dropped alone.
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._earlier = [parameter.grad for parameter in self._parameters]
        self._drop_gradients()
        self._random = random_state(self.device)
        self._buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]] = []
        try:
            in_healthy_thread(lambda: self._run(work))
        except Exception as error:
            if not memory.is_out_of_memory(error):
                self.ballot, self.error = StepVerdict.FAILED, error
            else:
                self.ballot, self.problem = StepVerdict.OUT_OF_MEMORY, memory.first_line(error)
        except BaseException:  # such as a KeyboardInterrupt
            self.undo()
            raise
        if self.problem is not None and work.together:
            self.undo()
            raise memory.TooLargeError(
                "SyncBatchNorm's chunks were expected to fit, as they did when tried.",
                f"Memory ran out in the middle ({self.problem}), where the other ranks cannot be waited for.",
                "Lower --batch-size, or leave --sync-batch-norm out.",
            )

    def _run(self, work: StepInputs) -> None:
        collecting = set(self.batchnorm.layers)  # whose statistics stay out of it
        for module in self.model.modules():
            if module.training and module not in collecting:
                self._buffers += [
                    (module, name, buffer, None if buffer is None else buffer.clone())
                    for name, buffer in module._buffers.items()
                ]
        set_checkpointing(self.model, work.checkpointing)
        start = 0
        with self.batchnorm.collecting(work.together):
            for tiles in work.chunks:
                end = start + sum(tiles)
                with self.batchnorm.chunk(tiles):
                    found = work.loss(*(tensor[start:end] for tensor in work.batch))
                value, sums = found if isinstance(found, tuple) else (found, None)
                work.scale(value / work.total).backward()  # type: ignore[no-untyped-call]
                self.loss += value.detach().double() / work.total
                if sums is not None:
                    self.sums = sums.detach() if self.sums is None else self.sums + sums.detach()
                del found, value, sums
                start = end
        work.claim()
        if self.world.size > 1:
            for parameter in self._parameters:
                if parameter.grad is None:  # none of this rank's images reached it
                    parameter.grad = torch.zeros_like(parameter)
            self.world.reserve([*self._gradients(), *self.batchnorm.sums()])
        if work.refuse_nan and not bool(torch.isfinite(self.loss)):
            self.ballot = StepVerdict.NOT_A_NUMBER

    def undo(self) -> None:
        """Leave everything as it was before, and let go of all tensors."""
        for parameter, gradient in zip(self._parameters, self._earlier, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            for module, name, buffer, before in self._buffers:
                if buffer is not None and before is not None:
                    buffer.copy_(before)
                module._buffers[name] = buffer  # which the forward pass may have replaced
        set_random_state(self._random, self.device)
        self.sums, self._earlier, self._buffers = None, [], []

    @torch.no_grad()
    def commit(self) -> None:
        """What concerns all ranks: gradients and statistics are added up. What is large was claimed before."""
        if self.batchnorm.layers:
            sums, counts = self.batchnorm.sums(), zip(*self.world.all_gather(self.batchnorm.counts()), strict=True)
            self.world.all_reduce([*self._gradients(), *sums])
            self.batchnorm.commit(sums, [int(sum(count)) for count in counts])
        else:
            self.world.all_reduce(self._gradients())
        for parameter, gradient in zip(self._parameters, self._earlier, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device


def set_checkpointing(model: Any, wanted: bool) -> bool:
    """Turn activation checkpointing on or off where the model offers it (timm, transformers); whether it does."""
    try:
        if hasattr(model, "set_grad_checkpointing"):
            model.set_grad_checkpointing(wanted)
            return True
        if getattr(model, "supports_gradient_checkpointing", False):
            model.gradient_checkpointing_enable() if wanted else model.gradient_checkpointing_disable()
            return True
    except AssertionError:  # timm's way to say that this network has none
        pass
    return False
