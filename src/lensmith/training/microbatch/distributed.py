"""Processes that train together: who they are, what they vote, and what they add up.

While chunks go forward and back no rank waits for another; they meet once a step, to vote, and add up gradients only
after the vote. Votes go through Gloo on the CPU, so a GPU that is out of memory can still take part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lensmith.errors import LensmithError, RunError
from lensmith.training.microbatch.memory import first_line

T = TypeVar("T")

TIMEOUT_S = 600.0
"""The longest that a rank waits for the others; longer than any step, and than validation by one of them."""


RENDEZVOUS = "LENSMITH_RENDEZVOUS"
"""Environment variable: where the ranks meet, as torch's `init_method`; `torchrun` has a way of its own."""


class LostRankError(RunError):
    """Another rank is gone; what happened is known there."""


class World:
    """All ranks as seen by one of them; alone, everything here is a formality.

    Attributes:
        rank: of this process, 0-based.
        size: number of processes.
        local_rank: number among those on this machine, which is the number of its GPU.
        on_this_machine: how many there are on it.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._flat: Tensor | None = None

    @classmethod
    def join(cls, timeout_s: float = TIMEOUT_S) -> World:
        """The world that `torchrun` or `launch` described in the environment; else a world of one."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            rank, where = int(os.environ["RANK"]), os.environ.get(RENDEZVOUS, "env://")
            dist.init_process_group(backend, where, timedelta(seconds=timeout_s), world_size=size, rank=rank)
        local_rank, here = (int(os.environ.get(name, "0")) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        return cls(dist.get_rank(), dist.get_world_size(), local_rank, here or dist.get_world_size())

    def leave(self) -> None:
        """Say goodbye to the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank is the one that writes and speaks."""
        return self.rank == 0

    def all_reduce_max(self, value: int) -> int:
        """The largest value that any rank gives."""
        if self.size == 1:
            return value
        ballot = torch.tensor([value], dtype=torch.int64)
        self._meet(lambda: dist.all_reduce(ballot, dist.ReduceOp.MAX))
        return int(ballot.item())

    def all_gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """What each rank says, a few numbers each, by rank."""
        if self.size == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        all_said = [torch.empty_like(own) for _ in range(self.size)]
        self._meet(lambda: dist.all_gather(all_said, own))
        return [said.tolist() for said in all_said]

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every rank's picklable value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._meet(lambda: dist.all_gather_object(values, value))
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's picklable value."""
        return self.all_gather_object(value if self.is_rank_zero else None)[0]

    def on_rank_zero(self, act: Callable[[], T]) -> T:
        """What rank 0 makes of `act`; the other ranks get the same, or raise the same error of lensmith."""
        if self.size == 1:
            return act()
        made: Any = None
        if self.is_rank_zero:
            try:
                made = act()
            except LensmithError as error:
                made = error
        made = self.broadcast_object(made)
        if isinstance(made, LensmithError):
            raise made
        return cast(T, made)

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give all ranks rank 0's tensors."""
        if self.size > 1:
            for tensor in tensors:
                self._meet(lambda tensor=tensor: dist.broadcast(tensor, 0))  # type: ignore[misc]

    def reserve(self, tensors: Sequence[Tensor]) -> None:
        """Take the memory that `add` of such tensors needs, so that it needs none later."""
        elements = sum(tensor.numel() for tensor in tensors)
        if self.size > 1 and (self._flat is None or self._flat.numel() < elements):
            self._flat = torch.empty(elements, dtype=tensors[0].dtype, device=tensors[0].device)

    @torch.no_grad()
    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors of one type over all ranks, in place and in one message."""
        if self.size == 1 or not tensors:
            return
        self.reserve(tensors)
        assert self._flat is not None
        flat = self._flat[: sum(tensor.numel() for tensor in tensors)]
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        places = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(places, list(tensors))
        self._meet(lambda: dist.all_reduce(flat))
        torch._foreach_copy_(list(tensors), places)

    def _meet(self, together: Callable[[], Any]) -> None:
        try:
            together()
        except RuntimeError as error:
            raise LostRankError(
                f"All {self.size} processes were expected to go on together.",
                f"Rank {self.rank} lost another one ({first_line(error)}).",
                "See what that one said; the run goes on from its last checkpoint with --resume.",
            ) from error
