"""Ranks: processes that train together (data-parallel training with torch.distributed).

Ranks do not wait for each other while chunks go forward and backward. They meet once a step: for the verdict, and after
it for the sum of the gradients. Verdicts go through Gloo on the CPU, so a GPU that is out of memory can take part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lensmith.core.machine import launched_ranks
from lensmith.core.text import first_line
from lensmith.errors import LensmithError, RunError, SettingsError

T = TypeVar("T")

TIMEOUT_S = 600.0
"""The longest that a rank waits for the others; longer than any step, and than validation by one of them."""

RENDEZVOUS = "LENSMITH_RENDEZVOUS"
"""Environment variable: where the ranks meet, as torch's `init_method`; `torchrun` has a way of its own."""


class LostRankError(RunError):
    """Another rank failed or is gone; its own output says why."""


class World:
    """All ranks, as seen by one of them. In a world of one every collective returns at once.

    Attributes:
        rank: number of this process among all, 0-based.
        size: number of processes.
        local_rank: number of this process among those on its machine, which is the number of its GPU.
        local_size: number of processes on this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._flat: Tensor | None = None

    @classmethod
    def join(cls) -> World:
        """The world that `torchrun` or `launch` described in the environment; else a world of one.

        Raises:
            SettingsError: the environment describes no world.
        """
        rank, size = launched_ranks()
        if size == 1:
            return cls()
        local = [os.environ.get(name, "0").strip() for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")]
        if not all(each.isdecimal() for each in local):
            raise SettingsError(
                "This process's number on its machine in LOCAL_RANK, and how many there are in LOCAL_WORLD_SIZE, were "
                "expected.",
                f"{local[0]!r} and {local[1]!r} arrived.",
                "Start them with torchrun or --processes.",
            )
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            where = os.environ.get(RENDEZVOUS, "env://")
            dist.init_process_group(backend, where, timedelta(seconds=TIMEOUT_S), world_size=size, rank=rank)
        local_rank, local_size = map(int, local)
        return cls(dist.get_rank(), dist.get_world_size(), local_rank, local_size or dist.get_world_size())

    def leave(self) -> None:
        """Leave the process group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank is the one that writes files and prints."""
        return self.rank == 0

    def all_reduce_max(self, value: int) -> int:
        """The largest of the ranks' values."""
        if self.size == 1:
            return value
        largest = torch.tensor([value], dtype=torch.int64)
        self._meet(lambda: dist.all_reduce(largest, dist.ReduceOp.MAX))
        return int(largest.item())

    def all_gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every rank's numbers, by rank; each rank gives as many."""
        if self.size == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        self._meet(lambda: dist.all_gather(gathered, own))
        return [each.tolist() for each in gathered]

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

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0, and return its result, or raise its LensmithError, on every rank."""
        if self.size == 1:
            return action()
        result: Any = None
        if self.is_rank_zero:
            try:
                result = action()
            except LensmithError as error:
                result = error
        result = self.broadcast_object(result)
        if isinstance(result, LensmithError):
            raise result
        return cast(T, result)

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors of any dtype and shape with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                self._meet(lambda tensor=tensor: dist.broadcast(tensor, 0))  # type: ignore[misc]

    def reserve(self, tensors: Sequence[Tensor]) -> None:
        """Allocate now what `all_reduce` of tensors of this dtype and these shapes needs."""
        elements = sum(tensor.numel() for tensor in tensors)
        if self.size > 1 and (self._flat is None or self._flat.numel() < elements):
            self._flat = torch.empty(elements, dtype=tensors[0].dtype, device=tensors[0].device)

    @torch.no_grad()
    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors of one dtype and any shape over the ranks, in place and in one message."""
        if self.size == 1 or not tensors:
            return
        self.reserve(tensors)
        assert self._flat is not None
        flat = self._flat[: sum(tensor.numel() for tensor in tensors)]
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        views = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(views, list(tensors))
        self._meet(lambda: dist.all_reduce(flat))
        torch._foreach_copy_(list(tensors), views)

    def _meet(self, collective: Callable[[], Any]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise LostRankError(
                f"All {self.size} ranks were expected to take part.",
                f"Rank {self.rank} lost another one ({first_line(error)}).",
                "See the other rank's output; `lensmith train --resume` continues from the last checkpoint.",
            ) from error
