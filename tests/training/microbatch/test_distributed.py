"""Ranks that train together end where one process would have, also when memory runs out on one or it is told to go."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training.microbatch.distributed import RENDEZVOUS, World
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer, create_run

pytestmark = pytest.mark.slow

Found = dict[str, Any]
LENSMITH = str(Path(sys.executable).with_name("lensmith"))


def settings_for(quick: dict[str, Any], data: Path, out: Path, **changes: Any) -> TrainSettings:
    chosen = {**quick, "data": data, "out": out, "epochs": 3, "optimizer": "sgd", "lr": 0.01, "image_size": 48}
    return TrainSettings.model_validate({**chosen, **changes})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, shared_colours: Path, quick_settings: dict[str, Any]) -> Found:
    """What two_ranks.py found: `one` process alone, and `two` together, by rank."""
    out = tmp_path_factory.mktemp("ranks")
    folders = [create_run(settings_for(quick_settings, shared_colours, out / name))[0].path for name in "abc"]
    script = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(out)]
    started = []
    for size in (1, 2):
        for rank in range(size):
            world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            named = {name: str(value) for name, value in world.items()}
            environment = {**os.environ, **named, RENDEZVOUS: f"file://{out}/meet-{size}", "OMP_NUM_THREADS": "1"}
            arguments = [str(folder) for folder in folders] if size > 1 else []
            started.append(subprocess.Popen([*script, *arguments], env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    one, *two = (torch.load(out / name, weights_only=False) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    return {"one": one, "two": two, "folders": folders}


def test_the_largest_vote_counts_on_every_rank(found: Found) -> None:
    assert [rank["vote"] for rank in found["two"]] == [4, 4]
    assert [rank["told"] for rank in found["two"]] == [[[0.0, 7.0], [1.0, 7.0]]] * 2
    assert [rank["gathered"] for rank in found["two"]] == [[{"rank": 0}, {"rank": 1}]] * 2


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of a tensor of the two."""
    return max(
        ((a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-6)).item()
        for a, b in zip(first.values(), second.values(), strict=True)
    )


@pytest.mark.parametrize("batch_norm", ["frozen", "tiles", "sync"])
def test_two_ranks_end_where_one_process_does(found: Found, batch_norm: str) -> None:
    for rank in found["two"]:
        assert apart(found["one"][batch_norm], rank[batch_norm]) < 1e-11  # in float64


@pytest.mark.parametrize("unlucky", [0, 1])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_memory_that_runs_out_on_either_rank_changes_nothing(found: Found, where: str, unlucky: int) -> None:
    ranks = [rank[f"{where} {unlucky}"] for rank in found["two"]]
    assert ranks[unlucky]["hit"]
    assert ranks[0]["limits"] == ranks[1]["limits"] != [None] * 5
    for rank in ranks:
        assert all(torch.equal(rank["weights"][name], rank["same"][name]) for name in rank["same"])
        assert apart(rank["weights"], rank["whole"]) < 1e-5
    assert all(torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name]) for name in ranks[0]["weights"])


def test_a_whole_run_goes_on_when_memory_runs_out_in_a_step_the_optimizer_or_validation(found: Found) -> None:
    runs = [Run.open(folder) for folder in found["folders"]]
    plain, *unlucky = (checkpoint.load(run.last)["learner"]["model"] for run in runs)
    for number, weights in enumerate(unlucky):
        assert all(count > 5 for count in found["two"][number]["runs"][number + 1]["calls"].values())
        assert apart(plain, weights) < 1e-5
    assert [sum(line["oom_retries"] for line in run.history()) > 0 for run in runs] == [False, True, True]


def test_there_is_one_log_and_one_checkpoint(found: Found) -> None:
    for folder in found["folders"]:
        names = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
        assert (names.count("start"), names.count("epoch"), names.count("end")) == (1, 3, 1)
        assert len(checkpoint.load(folder / "checkpoints/last.pt")["ranks"]) == 2


def test_a_fault_on_one_rank_ends_the_others_too(found: Found) -> None:
    assert found["two"][1]["failing"] == "ZeroDivisionError: a fault"
    assert "Another rank failed" in found["two"][0]["failing"]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint.load(run / "checkpoints/last.pt")["learner"]["model"]
    return state


def test_processes_that_the_settings_ask_for_train_like_one(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path
) -> None:
    one = Trainer().start(settings_for(quick, shared_colours, tmp_path / "one"))
    two = Trainer().start(settings_for(quick, shared_colours, tmp_path / "two", processes=2))
    assert apart(weights_of(one.run.path), weights_of(two.run.path)) < 1e-5
    assert two.metrics == pytest.approx(one.metrics, rel=1e-5)
    for alone, together in zip(one.run.history(), two.run.history(), strict=True):
        assert (alone["images"], alone["step"]) == (together["images"], together["step"])
        assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-5)


def flags(settings: TrainSettings) -> list[str]:
    given = {name: value for name, value in settings.model_dump(exclude_unset=True).items() if name != "data"}
    pretrained = [] if given.pop("pretrained") else ["--no-pretrained"]
    return [str(settings.data), *pretrained, *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


def start(*command: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"})  # type: ignore[call-overload, no-any-return]


def wait_for_event(run: Path, name: str, least: int = 1) -> None:
    for _ in range(1800):  # three minutes, as other tests may share the cores
        if (run / "events.jsonl").exists() and (run / "events.jsonl").read_text().count(f'"event": "{name}"') >= least:
            return
        time.sleep(0.1)
    pytest.fail(f"no {name} in {run}")


def test_sigterm_saves_all_ranks_and_the_resumed_run_ends_with_the_same_bits(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path
) -> None:
    settings = settings_for(quick, shared_colours, tmp_path / "run", processes=2, epochs=10, dropout=0.1)
    process = start(LENSMITH, "train", *flags(settings))
    wait_for_event(tmp_path / "run", "epoch", 3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.count("Resume it with: lensmith train --resume") == 1
    resumed = start(LENSMITH, "train", "--resume", str(tmp_path / "run"))
    _, said = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    whole = Trainer().start(settings.model_copy(update={"out": tmp_path / "whole"}))
    first, second = weights_of(whole.run.path), weights_of(tmp_path / "run")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_ranks_are_starting_leaves_nothing(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    process = start(LENSMITH, "train", *flags(settings_for(quick, shared_colours, run, processes=2)))
    while not workers_of(run):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said.startswith("lensmith: stopped")
    assert said.count("\n") == 1
    assert not run.exists()
    assert not workers_of(run)


def workers_of(run: Path) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", f"lensmith.training.worker {run}"], capture_output=True, text=True, check=False
    )
    return [int(number) for number in found.stdout.split()]


def test_a_rank_that_is_killed_ends_the_run_with_plain_words(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(
        LENSMITH, "train", *flags(settings_for(quick, shared_colours, run, processes=2, epochs=200, patience=200))
    )
    wait_for_event(run, "epoch", 2)
    os.kill(workers_of(run)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 2, said
    assert "was ended by SIGKILL" in said
    assert said.endswith(f"lensmith train --resume {run}\n")
    assert "Traceback" not in said
    assert Run.open(run).has_checkpoint


def test_ranks_that_outlive_the_process_that_started_them_save_before_another_goes_on(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(LENSMITH, "train", *flags(settings_for(quick, shared_colours, run, processes=2, epochs=8)))
    wait_for_event(run, "epoch", 2)
    process.kill()
    resumed = start(LENSMITH, "train", "--resume", str(run))
    while not (run / "events.jsonl").read_text().count('"event": "resume"'):
        assert resumed.poll() is None or not resumed.returncode, resumed.communicate()
        time.sleep(0.01)
    assert len(workers_of(run)) <= 2  # those before are gone
    _, said = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    process.communicate()
    assert [row["epoch"] for row in Run.open(run).history()] == list(range(1, 9))


def test_torchrun_works_as_well(quick: dict[str, Any], shared_colours: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lensmith"]
    process = start(*torchrun, "train", "--json", *flags(settings_for(quick, shared_colours, run)))
    out, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    results = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [result["run"] for result in results] == [str(run)]
    assert len(checkpoint.load(run / "checkpoints/last.pt")["ranks"]) == 2


def test_alone_everything_is_a_formality() -> None:
    world = World()
    tensor = torch.ones(3)
    world.all_reduce([tensor])
    world.broadcast([tensor])
    assert (
        world.all_reduce_max(4),
        world.all_gather([1, 2]),
        world.all_gather_object("x"),
        world.broadcast_object("y"),
    ) == (4, [[1, 2]], ["x"], "y")
    assert torch.equal(tensor, torch.ones(3))
    with pytest.raises(RunError, match="expected"):
        world.on_rank_zero(_fail)


def _fail() -> None:
    raise RunError("Something else was expected.", "This arrived.", "Do it again.")
