"""Ranks that `launch` starts end where one process would have, and whatever ends one of them leaves a run to resume."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.cli import main
from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training import launch
from lensmith.training.learner import Learner
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer

Settings = Callable[..., TrainSettings]
AtStep = Callable[[int, int, Callable[[], object]], Any]


@pytest.fixture
def settings(quick: dict[str, Any], shared_colours: Path, tmp_path: Path, _no_plots: None) -> Settings:
    """Settings of a short run by two ranks; keywords change them."""
    chosen = {"epochs": 3, "optimizer": "sgd", "lr": 0.01, "image_size": 48, "out": tmp_path / "run", "processes": 2}
    return lambda **changes: TrainSettings.model_validate({**quick, "data": shared_colours, **chosen, **changes})


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch, _forked_ranks: None) -> AtStep:
    """A context in which a rank does something before a 0-based step."""

    @contextmanager
    def doing(rank: int, at: int, act: Callable[[], object]) -> Iterator[None]:
        plain = Learner.training_step

        def take(self: Learner, batch: Any, plan: Any, step: int, *others: Any) -> Any:
            if step == at and self.world.rank == rank:
                act()
            return plain(self, batch, plan, step, *others)

        with monkeypatch.context() as patched:
            patched.setattr(Learner, "training_step", take)
            yield

    return doing


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint.load(run / "checkpoints/last.pt")["learner"]["model"]
    return state


@pytest.mark.slow
def test_processes_that_the_settings_ask_for_train_like_one(settings: Settings, tmp_path: Path) -> None:
    one, two = (Trainer().start(settings(out=tmp_path / f"{count}", processes=count)) for count in (1, 2))
    for first, second in zip(weights_of(one.run.path).values(), weights_of(two.run.path).values(), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-6)
    assert two.metrics == pytest.approx(one.metrics, rel=1e-5)
    for alone, together in zip(one.run.history(), two.run.history(), strict=True):
        assert (alone["images"], alone["step"]) == (together["images"], together["step"])
        assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-5)


@pytest.mark.slow
def test_sigterm_saves_all_ranks_and_the_resumed_run_ends_with_the_same_bits(
    settings: Settings, at_step: AtStep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with at_step(0, 4, lambda: os.kill(os.getppid(), signal.SIGTERM)), pytest.raises(RunInterruptedError) as raised:
        Trainer().start(settings(dropout=0.1))
    assert raised.value.exit_code == 75
    assert "Traceback" not in capfd.readouterr().err
    assert Run.open(tmp_path / "run").read_events("interrupted")
    Trainer().resume(tmp_path / "run")
    Trainer().start(settings(dropout=0.1, out=tmp_path / "whole"))
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("_forked_ranks")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_ranks_are_starting_leaves_nothing(
    settings: Settings, in_child: Callable[[Callable[[], None]], int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int, code: int,
) -> None:  # fmt: skip
    def starting() -> None:  # in each rank, before it has handlers of signals
        (tmp_path / str(os.getpid())).touch()
        os.kill(os.getppid(), number)
        time.sleep(100)

    monkeypatch.setattr(launch, "end_with_parent", starting)
    given = settings().model_dump(exclude_unset=True)
    pretrained = [] if given.pop("pretrained") else ["--no-pretrained"]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if name != "data"]
    assert in_child(lambda: main(["train", str(given["data"]), *pretrained, *flags])) == code
    err = capfd.readouterr().err
    assert err.startswith("lensmith: stopped")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    ranks = [int(file.name) for file in tmp_path.iterdir() if file.name.isdecimal()]
    assert ranks
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]


def test_a_rank_that_is_killed_ends_the_run_which_can_be_resumed(
    settings: Settings, at_step: AtStep, tmp_path: Path
) -> None:
    with at_step(1, 4, lambda: os.kill(os.getpid(), signal.SIGKILL)), pytest.raises(RunError) as raised:
        Trainer().start(settings())
    assert "SIGKILL" in raised.value.arrived
    assert raised.value.remedy.endswith(f"lensmith train --resume {tmp_path / 'run'}")
    assert Trainer().resume(tmp_path / "run").epochs == 3


def test_ranks_that_outlive_the_process_that_started_them_save_before_another_resumes(
    settings: Settings, at_step: AtStep, fork: Callable[..., Any], tmp_path: Path
) -> None:
    def end_parent() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        os.kill(os.getppid(), signal.SIGKILL)
        while signal.getsignal(signal.SIGTERM) == handler:  # until this rank has noticed it
            time.sleep(0.05)

    with at_step(0, 4, end_parent):
        fork(lambda: Trainer().start(settings())).join()
    ended = Trainer().resume(tmp_path / "run")
    assert ended.run.read_events("interrupted")[0]["step"] == 5
    assert [row["epoch"] for row in ended.run.history()] == [1, 2, 3]


@pytest.mark.slow
def test_torchrun_works_as_well(settings: Settings, tmp_path: Path) -> None:
    given = settings(processes=1).model_dump(exclude_unset=True)
    flags = [
        f"--{name.replace('_', '-')}={value}" for name, value in given.items() if name not in ("data", "pretrained")
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lensmith"]
    done = subprocess.run(
        [*torchrun, "train", given["data"], "--no-pretrained", "--json", *flags], capture_output=True, text=True,
        check=False, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [result["run"] for result in results] == [str(tmp_path / "run")]
    assert len(checkpoint.load(tmp_path / "run/checkpoints/last.pt")["ranks"]) == 2
