"""Run by test_distributed.py as each of the ranks: trains in several ways, and writes what came out to OUT/RANK.pt."""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F

from lensmith.errors import LensmithError
from lensmith.training.learner import Learner
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.microbatch import MicroBatcher
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer

IMAGES, STEPS = 12, 5
State = dict[str, torch.Tensor]


class Injected:
    """Memory that runs out on one rank at chosen calls of `at`."""

    def __init__(self, calls: set[int]) -> None:
        self.calls, self.count = calls, 0

    def at(self) -> None:
        self.count += 1
        if self.count - 1 in self.calls:
            raise torch.OutOfMemoryError("CUDA out of memory. (injected)")


def steps(
    world: World,
    *,
    dtype: torch.dtype = torch.float32,
    learning: bool = False,
    tile: int = 6,
    sync: bool = False,
    limits: list[int | None] | None = None,
    where: str = "",
    injected: Injected | None = None,
) -> tuple[State, list[int | None]]:
    """The weights after some steps of this rank's share of each batch, and the limits its scheduler had."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).to(dtype).train(learning)
    pictures = torch.rand(STEPS, IMAGES, 3, 64, 64).to(dtype)
    labels = torch.randint(0, 3, (STEPS, IMAGES))
    kind = torch.optim.SGD if dtype is torch.float64 else torch.optim.AdamW
    optimizer = kind(model.parameters(), lr=1e-3, fused=True)
    micro = MicroBatcher(model, tile=tile, world=world, sync_batch_norm=sync, checkpointing="never")
    micro.scheduler.patience = 10**6
    share = slice(world.rank * IMAGES // world.size, (world.rank + 1) * IMAGES // world.size)
    used = []

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if injected and where == "forward":
            injected.at()
        value = F.cross_entropy(model(x), y, reduction="sum")
        if injected and where == "backward":
            value.register_hook(lambda gradient: injected.at())
        return value

    for step in range(STEPS):
        if limits is not None:
            micro.scheduler.limit = limits[step]
        micro.backward((pictures[step][share], labels[step][share]), loss)
        used.append(micro.scheduler.limit)
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, used


def out_of_memory(world: World, where: str, unlucky: int) -> dict[str, Any]:
    """A run in which memory runs out on one rank, and one that is cut the same way without it."""
    drawn = random.Random(f"{where}{unlucky}")
    calls = {drawn.randrange(0, STEPS) for _ in range(2)}
    mine = Injected(calls if world.rank == unlucky else set())
    weights, limits = steps(world, where=where, injected=mine)
    same, _ = steps(world, limits=limits)
    whole, _ = steps(world)
    return {"weights": weights, "same": same, "whole": whole, "limits": limits, "hit": mine.count > min(calls)}


def whole_run(world: World, folder: Path, unlucky: int | None) -> dict[str, Any]:
    """A run folder trained to its end; on one rank memory runs out in forward, optimizer step and validation."""
    take, step = Learner._loss, torch.optim.SGD.step
    plans = {name: Injected({1, 5} if world.rank == unlucky else set()) for name in ("forward", "step", "inference")}

    def failing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            plans[name].at()
            return function(*args, **kwargs)

        return call

    from lensmith.training.microbatch import chunks

    forward = chunks._chunk_by_chunk
    Learner._loss = failing("forward", take)  # type: ignore[method-assign]
    torch.optim.SGD.step = failing("step", step)  # type: ignore[method-assign]

    def validating(scheduler: ChunkScheduler, batch: torch.Tensor, run: Callable[..., Any]) -> Any:
        return forward(scheduler, batch, failing("inference", run))

    chunks._chunk_by_chunk = validating
    try:
        Trainer(world=world).run(Run.open(folder))
    finally:
        Learner._loss, torch.optim.SGD.step, chunks._chunk_by_chunk = take, step, forward  # type: ignore[method-assign]
    return {"calls": {name: plan.count for name, plan in plans.items()}}


def failing_rank(world: World) -> str:
    """Rank 1 has a fault of its own; what this rank hears."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        if world.rank == 1:
            raise ZeroDivisionError("a fault")
        return model(x).square().sum()

    model = torch.nn.Linear(4, 2)
    try:
        MicroBatcher(model, world=world).backward((torch.ones(4, 4),), loss)
    except (LensmithError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(out: Path, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    world = World.join()
    found: dict[str, Any] = {
        "vote": world.all_reduce_max(world.rank + 3),
        "told": world.all_gather([world.rank, 7.0]),
        "gathered": world.all_gather_object({"rank": world.rank}),
        "frozen": steps(world, dtype=torch.float64)[0],
        "tiles": steps(world, dtype=torch.float64, learning=True)[0],
        "sync": steps(world, dtype=torch.float64, learning=True, tile=IMAGES, sync=True)[0],
    }
    if world.size > 1:
        found["failing"] = failing_rank(world)
        for where in ("forward", "backward"):
            for unlucky in range(world.size):
                found[f"{where} {unlucky}"] = out_of_memory(world, where, unlucky)
        found["runs"] = [
            whole_run(world, folder, unlucky) for folder, unlucky in zip(folders, (None, 0, 1), strict=True)
        ]
    torch.save(found, out / f"{world.size}-{world.rank}.pt")
    world.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
    os._exit(0)  # Gloo's threads may still be waiting for each other
