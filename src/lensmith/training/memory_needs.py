"""The needs record of a run that ran out of memory: RUN/needs.json, for whatever starts it again with more.

The memory of a step is counted on tensors without storage (torch's FakeTensorMode), so the count itself takes none.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lensmith.core.result import Result
from lensmith.training.learner import Learner
from lensmith.training.microbatch.attempt import set_checkpointing
from lensmith.training.microbatch.usage import status_bytes

OVERHEAD = 1.5
"""Measured peak of a step over its counted tensors: 0.98 to 1.68 for eight networks on a CPU (docs/log.md)."""


@dataclass(frozen=True)
class MemoryNeeds(Result):
    """Memory that one process of a training would need for its smallest step, and what it had.

    Attributes:
        kind: the resource that was short: memory.
        device: cpu or cuda.
        processes: number of processes that train together, each with these needs.
        limit_bytes: the cap of one process in bytes; None: there was none.
        needed_bytes: an estimate of what one process needs in bytes; None where the network cannot be counted.
        model: the backbone.
        image_size: pixels a side of the images of the step.
        images: images that go through at once in the smallest chunk.
        checkpointing: whether activation checkpointing is in the estimate.
        precision: fp32, bf16 or fp16.
        step: number of steps that were done.
        fits: settings with which the run was found to fit here; empty: none were found.
    """

    device: str
    processes: int
    limit_bytes: int | None
    needed_bytes: int | None
    model: str
    image_size: int
    images: int
    checkpointing: bool
    precision: str
    step: int
    fits: Mapping[str, Any]
    kind: str = "memory"


def find_needs(learner: Learner, limit_bytes: int | None, step: int, fits: Mapping[str, Any]) -> MemoryNeeds:
    """The needs of a learner whose smallest chunk did not fit.

    Args:
        learner: the learner, after its memory was released.
        limit_bytes: the cap of this process in bytes; None: there was none.
        step: number of steps that are done.
        fits: settings that were found to fit, by name.
    """
    settings = learner.settings
    checkpointing = settings.checkpointing != "never" and set_checkpointing(learner.model, True)
    return MemoryNeeds(
        device=learner.device.type,
        processes=learner.world.size,
        limit_bytes=limit_bytes,
        needed_bytes=_needed_bytes(learner, settings.min_chunk),
        model=settings.model,
        image_size=learner.image_size,
        images=settings.min_chunk,
        checkpointing=checkpointing,
        precision=learner.forward.precision,
        step=step,
        fits=dict(fits),
    )


def _needed_bytes(learner: Learner, images: int) -> int | None:
    """What the process has now, a batch, the optimizer's state and a step of so many images; None: not countable."""
    try:
        step = step_bytes(learner, images)
    except Exception:  # an operation without a rule for tensors without storage; the record must not fail for it
        return None
    trained = sum(each.numel() for each in learner.model.parameters() if each.requires_grad)
    copies = 1 if learner.settings.optimizer == "sgd" else 2
    state = 0 if learner.optimizer.state else 4 * copies * trained
    batch = 4 * learner.settings.batch_size * torch.Size(learner.forward.input_shape).numel()
    on_gpu = learner.device.type == "cuda"
    present = torch.cuda.memory_allocated(learner.device) if on_gpu else status_bytes("VmRSS")
    return present + batch + state + int(OVERHEAD * step)


def step_bytes(learner: Learner, images: int) -> int:
    """Peak of the tensors that a forward and backward pass of `images` allocates, gradients included, in bytes.

    Raises:
        Exception: whatever an operation raises that has no rule for tensors without storage.
    """
    fake, peak = FakeTensorMode(), _PeakBytes()
    with FakeCopyMode(fake):
        forward = copy.deepcopy(learner.forward)
    with fake, peak:
        batch = torch.zeros(images, *learner.forward.input_shape, device=learner.device)
        forward(batch).float().square().mean().backward()  # type: ignore[no-untyped-call]
    return peak.bytes


class _PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of the storages that operations make, until they are freed; `bytes` is the largest sum at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._live.pop, storage._cdata, None)
        self.bytes = max(self.bytes, sum(self._live.values()))
        return made
