"""Tracked trainings, with the uploader process, a real store and a real server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.registries import Server
from fixtures.tracked_runs import files, histories, log_event, runs_of, state_of
from lensmith.config import TrainSettings
from lensmith.tracking.sidecar import TrackingSidecar
from lensmith.tracking.state import TrackingState
from lensmith.tracking.sync import sync
from lensmith.training.learner import Learner
from lensmith.training.run_dir import checkpoint
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer
from lensmith.workflows import train_and_export

pytestmark = pytest.mark.slow


@pytest.fixture
def in_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """`in_step(n, act)`: do something once, in a 0-based step of the next training."""

    def patch(step: int, act: Callable[[], None]) -> None:
        plain, left = Learner.training_step, [act]

        def take(self: Learner, batch: Any, plan: Any, at: int, *others: Any) -> Any:
            if at == step and left:
                left.pop()()
            return plain(self, batch, plan, at, *others)

        monkeypatch.setattr(Learner, "training_step", take)

    return patch


def until(run: Path, what: Callable[[TrackingState], bool]) -> TrackingState:
    """The state as soon as it is so; the test's own time limit ends the waiting."""
    while (state := TrackingState.read(run)) is None or not what(state):
        time.sleep(0.05)
    return state


def same_weights(one: Path, other: Path) -> bool:
    first, second = (checkpoint.load(run / "checkpoints/best.pt")["model"] for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_goes_on_without_the_server_comes_to_the_same_bits_and_what_was_missed_arrives_once(
    postgresql: Server, quick: dict[str, Any], shared_colours: Path, trained: Path, tmp_path: Path, in_step: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LENSMITH_TRACKING_URI", postgresql.url)
    monkeypatch.setenv("LENSMITH_TRACKING_ARTIFACTS", str(tmp_path / "artifacts"))
    out = tmp_path / "run"

    def kill() -> None:
        until(out, lambda state: state.described)
        assert sidecar._process is not None
        uploader = sidecar._process.pid
        assert os.getsid(uploader) != os.getsid(0)  # out of reach of the terminal's Ctrl-C
        assert os.getpriority(os.PRIO_PROCESS, uploader) == 19
        postgresql.kill()

    in_step(9, kill)
    settings = TrainSettings.model_validate({**quick, "data": shared_colours, "out": out, "tracking": "auto"})
    with TrackingSidecar() as sidecar:
        Trainer(lambda run: sidecar.begin(run.path, run.settings.tracking)).start(settings)
    assert same_weights(out, trained)
    tracked = sidecar.tracked()
    assert tracked is not None
    assert not tracked.complete
    assert tracked.problem is not None
    assert "127.0.0.1" in tracked.problem

    postgresql.start()
    synced = sync([out])  # the uploader may still be at it, or be the one that sends
    assert synced.problem is None
    state = state_of(out)
    assert state.is_complete(out)
    (made,) = runs_of(postgresql.url, state.key)
    assert (made.info.run_id, made.info.status) == (tracked.run_id, "FINISHED")
    values = histories(postgresql.url, made.info.run_id)
    assert [step for step, _ in values["train_loss"]] == list(range(1, 9))
    assert {"curves.png", "memory.png"} == files(postgresql.url, made.info.run_id)


def test_an_interrupted_run_that_goes_on_is_one_run_and_is_complete_at_its_end(
    runs_uri: str, quick: dict[str, Any], shared_colours: Path, tmp_path: Path, in_step: Any
) -> None:
    out = tmp_path / "run"
    in_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunInterruptedError):
        train_and_export.train({**quick, "data": shared_colours, "out": out, "tracking": runs_uri})
    stopped = until(out, lambda state: state.status == "KILLED")
    trained = train_and_export.train({"data": None}, resume=out)
    state = until(out, lambda state: state.is_complete(out))
    assert trained.tracked is not None
    assert trained.tracked.run_id == state.run_id == stopped.run_id
    (made,) = runs_of(runs_uri, state.key)
    assert made.info.status == "FINISHED"
    assert made.data.metrics["bundle/accuracy"] == pytest.approx(trained.accuracy)
    assert "report.html" in files(runs_uri, made.info.run_id)
    assert {"interrupted", "resume"} < set(made.data.tags)
    values = histories(runs_uri, made.info.run_id)
    assert [step for step, _ in values["train_loss"]] == list(range(1, 9))


def test_a_process_that_is_killed_leaves_a_failed_run_behind(run: Path, runs_uri: str) -> None:
    (run / "events.jsonl").unlink()
    log_event(run, "start", step=0)
    code = (
        "import os, sys; from pathlib import Path; from lensmith.tracking.sidecar import TrackingSidecar\n"
        "TrackingSidecar().begin(Path(sys.argv[1]), sys.argv[2]); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(run), runs_uri], check=False)
    assert ended.returncode == -signal.SIGKILL
    state = until(run, lambda state: state.status == "FAILED")
    assert runs_of(runs_uri, state.key)[0].data.tags["failed"]
