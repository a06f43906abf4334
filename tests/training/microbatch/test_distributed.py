"""Ranks that train together end where one process would have, also when memory runs out on one."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from lensmith.config import TrainSettings
from lensmith.errors import LensmithError, RunError, SettingsError
from lensmith.training.learner import Learner
from lensmith.training.microbatch import chunks
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.distributed import RENDEZVOUS, World
from lensmith.training.microbatch.microbatch import MicroBatcher
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer, create_run

IMAGES, STEPS = 12, 5
State = dict[str, torch.Tensor]
Found = dict[str, Any]


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
    pictures = torch.rand(STEPS, IMAGES, 3, 48, 48).to(dtype)
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


def ways(world: World) -> Found:
    """The weights after steps in float64: with frozen BatchNorm, virtual batches and SyncBatchNorm."""
    return {
        "frozen": steps(world, dtype=torch.float64)[0],
        "virtual batches": steps(world, dtype=torch.float64, learning=True)[0],
        "sync": steps(world, dtype=torch.float64, learning=True, tile=IMAGES, sync=True)[0],
    }


def out_of_memory(world: World, where: str, unlucky: int) -> Found:
    """A run in which memory runs out on one rank, and one that is cut the same way without it."""
    drawn = random.Random(f"{where}{unlucky}")
    calls = {drawn.randrange(0, STEPS) for _ in range(2)}
    mine = Injected(calls if world.rank == unlucky else set())
    weights, limits = steps(world, where=where, injected=mine)
    same, _ = steps(world, limits=limits)
    return {"weights": weights, "same": same, "limits": limits, "hit": mine.count > min(calls)}


def whole_run(world: World, folder: Path, unlucky: int | None) -> dict[str, int]:
    """Train a run folder to its end; on one rank memory runs out in forward, optimizer step and validation."""
    plans = {name: Injected({1, 5} if world.rank == unlucky else set()) for name in ("forward", "step", "inference")}
    forward = chunks._chunk_by_chunk

    def failing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            plans[name].at()
            return function(*args, **kwargs)

        return call

    def validating(scheduler: ChunkScheduler, batch: torch.Tensor, run: Callable[..., Any]) -> Any:
        return forward(scheduler, batch, failing("inference", run))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_loss", failing("forward", Learner._loss))
        patch.setattr(torch.optim.SGD, "step", failing("step", torch.optim.SGD.step))
        patch.setattr(chunks, "_chunk_by_chunk", validating)
        Trainer(world=world).run(Run.open(folder))
    return {name: plan.count for name, plan in plans.items()}


def failing_rank(world: World) -> str:
    """Rank 1 has a fault of its own; the error that this rank gets."""

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


def as_rank(rank: int, out: Path, folders: list[Path]) -> None:
    """Do all of it as one of two ranks, and write what came out to OUT/RANK.pt."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, RENDEZVOUS: f"file://{out}/meet"}
    os.environ.update({name: str(value) for name, value in names.items()})
    world = World.join()
    found = {
        **ways(world),
        "collectives": (
            world.all_reduce_max(world.rank + 3), world.all_gather([world.rank, 7.0]), world.all_gather_object({rank}),
        ),
        "failing": failing_rank(world),
        "whole": steps(world)[0],
        "unlucky": {where: out_of_memory(world, where, which) for where, which in UNLUCKY},
        "runs": [whole_run(world, folder, which) for folder, which in zip(folders, (None, 0, 1), strict=True)],
    }  # fmt: skip
    torch.save(found, out / f"{rank}.pt")
    world.leave()


UNLUCKY = (("forward", 0), ("backward", 1))
"""Where memory runs out, and on which rank."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, shared_colours: Path, quick_settings: Found) -> list[Path]:
    """Run folders that are not trained yet."""
    out = tmp_path_factory.mktemp("folders")
    chosen = {**quick_settings, "data": shared_colours, "epochs": 3, "optimizer": "sgd", "lr": 0.01}
    return [create_run(TrainSettings.model_validate({**chosen, "out": out / name}))[0].path for name in "abc"]


@pytest.fixture(scope="module")
def two(fork: Callable[..., Any], folders: list[Path], tmp_path_factory: Any, _little_to_collect: None) -> list[Found]:
    """What two ranks found together, by rank."""
    out = tmp_path_factory.mktemp("ranks")
    children = [fork(lambda rank=rank: as_rank(rank, out, folders)) for rank in (0, 1)]  # type: ignore[misc]
    for child in children:
        child.join()
        assert child.exitcode == 0
    return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def apart(first: State, second: State) -> float:
    """The largest relative difference of a tensor of the two."""
    return max(
        ((a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-6)).item()
        for a, b in zip(first.values(), second.values(), strict=True)
    )


@pytest.mark.slow
def test_collectives_bring_every_rank_s_values_to_every_rank(two: list[Found]) -> None:
    assert [rank["collectives"] for rank in two] == [(4, [[0.0, 7.0], [1.0, 7.0]], [{0}, {1}])] * 2


@pytest.mark.slow
def test_two_ranks_end_where_one_process_does(two: list[Found]) -> None:
    for name, alone in ways(World()).items():
        for rank in two:
            assert apart(alone, rank[name]) < 1e-11, name  # in float64


@pytest.mark.slow
@pytest.mark.parametrize(("where", "unlucky"), UNLUCKY)
def test_memory_that_runs_out_on_either_rank_changes_nothing(two: list[Found], where: str, unlucky: int) -> None:
    ranks = [rank["unlucky"][where] for rank in two]
    assert ranks[unlucky]["hit"]
    assert ranks[0]["limits"] == ranks[1]["limits"] != [None] * STEPS
    for rank, found in zip(ranks, two, strict=True):
        assert all(torch.equal(rank["weights"][name], rank["same"][name]) for name in rank["same"])
        assert apart(rank["weights"], found["whole"]) < 1e-5
    assert all(torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name]) for name in ranks[0]["weights"])


@pytest.mark.slow
def test_a_whole_run_goes_on_when_memory_runs_out_in_a_step_the_optimizer_or_validation(
    two: list[Found], folders: list[Path]
) -> None:
    runs = [Run.open(folder) for folder in folders]
    plain, *unlucky = (checkpoint.load(run.last)["learner"]["model"] for run in runs)
    for number, weights in enumerate(unlucky):
        assert all(count > 5 for count in two[number]["runs"][number + 1].values())
        assert apart(plain, weights) < 1e-5
    assert [sum(line["oom_retries"] for line in run.history()) > 0 for run in runs] == [False, True, True]


@pytest.mark.slow
def test_there_is_one_log_and_one_checkpoint(two: list[Found], folders: list[Path]) -> None:
    for run in map(Run.open, folders):
        assert [len(run.read_events(name)) for name in ("start", "epoch", "end")] == [1, 3, 1]
        assert len(checkpoint.load(run.last)["ranks"]) == 2


@pytest.mark.slow
def test_a_fault_on_one_rank_ends_the_others_too(two: list[Found]) -> None:
    assert two[1]["failing"] == "ZeroDivisionError: a fault"
    assert two[0]["failing"].startswith("LostRankError: ")


def test_alone_collectives_return_what_they_are_given() -> None:
    world, tensor = World(), torch.ones(3)
    world.all_reduce([tensor])
    world.broadcast([tensor])
    assert torch.equal(tensor, torch.ones(3))
    assert (world.all_reduce_max(4), world.all_gather([1, 2])) == (4, [[1, 2]])
    assert (world.all_gather_object("x"), world.broadcast_object("y")) == (["x"], "y")

    def fail() -> None:
        raise RunError("Something else was expected.", "This arrived.", "Do it again.")

    with pytest.raises(RunError, match="expected"):
        world.on_rank_zero(fail)


@pytest.mark.parametrize("value", ["", "x", "-1"])
def test_a_number_on_this_machine_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, given in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": value}.items():
        monkeypatch.setenv(name, given)
    with pytest.raises(SettingsError, match="LOCAL_RANK"):
        World.join()
