"""One attempt at a micro-batch step: gradient accumulation over chunks, rolled back or committed as a whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.core.text import first_line
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.batchnorm import GhostBatchNorm
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread
from lensmith.training.microbatch.rng_state import random_state, set_random_state

Loss = Callable[..., Tensor | tuple[Tensor, Tensor]]
"""A chunk of each tensor of the batch → the SUM of its losses, or (that sum, further sums to add up over chunks)."""


class StepVerdict(IntEnum):
    """How a rank's part of a step went, and what it asks for; the largest value of all ranks counts."""

    FINE = 0
    SAVE = 1
    STOP = 2
    NOT_A_NUMBER = 3
    OUT_OF_MEMORY = 4
    FAILED = 5


@dataclass(frozen=True)
class StepInputs:
    """A batch, and how to compute its gradients.

    Attributes:
        batch: tensors with the same first dimension.
        chunks: sizes of the virtual batches in each chunk.
        total: sum of all ranks' sample weights; the sum of losses is divided by it.
        checkpointing: whether activations are computed again in the backward pass instead of stored.
        synchronized: whether BatchNorm shares statistics among the ranks.
        loss: loss function of a chunk, see `Loss`.
        scale: gradient scaler's `scale`, or the identity.
        claim: allocates the memory that is needed after the verdict, such as the optimizer's state.
        refuse_nan: whether a loss that is not finite makes the verdict NOT_A_NUMBER.
    """

    batch: Sequence[Tensor]
    chunks: Sequence[Sequence[int]]
    total: float
    checkpointing: bool
    synchronized: bool
    loss: Loss
    scale: Callable[[Tensor], Tensor]
    claim: Callable[[], None]
    refuse_nan: bool


class StepAttempt:
    """Gradients of one batch; computed when this is made, then to be either undone or committed.

    No exception of an out-of-memory error is stored, since its traceback would pin tensors.

    Attributes:
        verdict: this rank's verdict.
        problem: message of the out-of-memory error, if there was one.
        error: any other exception that the loss function or the model raised.
        loss: float64 scalar, see `StepResult`.
        sums: further sums of the loss function, see `StepResult`.
    """

    def __init__(self, model: nn.Module, batchnorm: GhostBatchNorm, world: World, inputs: StepInputs) -> None:
        self.model, self.batchnorm, self.world = model, batchnorm, world
        self.device = device_of(model)
        self.verdict = StepVerdict.FINE
        self.problem: str | None = None
        self.error: Exception | None = None
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.sums: Tensor | None = None
        # Earlier gradients are put aside, so that this step's can be dropped alone.
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._earlier = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        self._random = random_state(self.device)
        self._buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]] = []
        try:
            in_healthy_thread(lambda: self._run(inputs))
        except Exception as error:
            if not memory.is_out_of_memory(error):
                self.verdict, self.error = StepVerdict.FAILED, error
            else:
                self.verdict, self.problem = StepVerdict.OUT_OF_MEMORY, first_line(error)
        except BaseException:  # such as a KeyboardInterrupt
            self.undo()
            raise
        if self.problem is not None and inputs.synchronized:
            self.undo()
            raise memory.TooLargeError(
                "SyncBatchNorm's chunks were expected to fit, as they did when tried.",
                f"Memory ran out in the middle ({self.problem}), where the other ranks cannot be waited for.",
                "Lower --batch-size, or leave --sync-batch-norm out.",
            )

    def _run(self, inputs: StepInputs) -> None:
        collecting = set(self.batchnorm.layers)  # these restore their own buffers
        for module in self.model.modules():
            if module.training and module not in collecting:
                self._buffers += [
                    (module, name, buffer, None if buffer is None else buffer.clone())
                    for name, buffer in module._buffers.items()
                ]
        set_checkpointing(self.model, inputs.checkpointing)
        start = 0
        with self.batchnorm.collecting(inputs.synchronized):
            for sizes in inputs.chunks:
                end = start + sum(sizes)
                with self.batchnorm.chunk(sizes):
                    found = inputs.loss(*(tensor[start:end] for tensor in inputs.batch))
                value, sums = found if isinstance(found, tuple) else (found, None)
                inputs.scale(value / inputs.total).backward()  # type: ignore[no-untyped-call]
                self.loss += value.detach().double() / inputs.total
                if sums is not None:
                    self.sums = sums.detach() if self.sums is None else self.sums + sums.detach()
                del found, value, sums  # so that no graph of this chunk lives on beside the next one's
                start = end
        inputs.claim()
        if self.world.size > 1:
            for parameter in self._parameters:
                if parameter.grad is None:  # none of this rank's images reached it
                    parameter.grad = torch.zeros_like(parameter)
            self.world.reserve([*self._gradients(), *self.batchnorm.sums()])
        if inputs.refuse_nan and not bool(torch.isfinite(self.loss)):
            self.verdict = StepVerdict.NOT_A_NUMBER

    def undo(self) -> None:
        """Roll back: gradients, buffers and random state become what they were, and all tensors are let go."""
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
        """Add up gradients and statistics over the ranks and keep them; allocates nothing large any more."""
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


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


def set_checkpointing(model: Any, wanted: bool) -> bool:
    """Turn activation checkpointing on or off.

    Returns:
        Whether the model offers it (timm, transformers).
    """
    try:
        if hasattr(model, "set_grad_checkpointing"):
            model.set_grad_checkpointing(wanted)
            return True
        if getattr(model, "supports_gradient_checkpointing", False):
            model.gradient_checkpointing_enable() if wanted else model.gradient_checkpointing_disable()
            return True
    except AssertionError:  # timm raises it for networks without checkpointing
        pass
    return False
