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

from lensmith.registry import client as store
from lensmith.tracking.sender import KEY
from lensmith.tracking.sidecar import TrackingSidecar
from lensmith.tracking.state import TrackingState
from lensmith.tracking.sync import sync
from lensmith.training.learner import Learner
from lensmith.training.run_dir import checkpoint
from lensmith.training.signals import RunInterruptedError
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


def runs_of(uri: str, key: str) -> list[Any]:
    client = store.client(uri)
    return list(
        client.search_runs([one.experiment_id for one in client.search_experiments()], f"tags.`{KEY}` = '{key}'")
    )


def test_a_training_goes_on_without_the_server_comes_to_the_same_bits_and_what_was_missed_arrives_once(
    server: Any, quick: dict[str, Any], shared_colours: Path, tmp_path: Path, in_step: Any, histories: Any, files: Any
) -> None:
    settings = {**quick, "data": shared_colours}
    plain = train_and_export.train({**settings, "out": tmp_path / "plain", "tracking": "none"})
    assert plain.tracked is None
    assert not (tmp_path / "plain" / "tracking.json").exists()

    out = tmp_path / "run"

    def kill() -> None:
        until(out, lambda state: state.described)
        server.kill()

    in_step(9, kill)
    trained = train_and_export.train({**settings, "out": out, "tracking": server.url})
    assert same_weights(out, tmp_path / "plain")
    assert trained.tracked is not None
    assert not trained.tracked.complete
    assert trained.tracked.problem is not None
    assert server.url in trained.tracked.problem

    server.start()
    synced = sync([out])  # the side process may still be at it, or be the one that sends
    assert synced.problem is None
    state = TrackingState.read(out)
    assert state is not None
    assert state.is_complete(out)
    (made,) = runs_of(server.url, state.key)
    assert (made.info.run_id, made.info.status) == (trained.tracked.run_id, "FINISHED")
    values = histories(server.url, made.info.run_id)
    assert [step for step, _ in values["train_loss"]] == list(range(1, 9))
    assert {"curves.png", "memory.png", "report.html"} < files(server.url, made.info.run_id)
    assert made.data.metrics["bundle/accuracy"] == pytest.approx(trained.accuracy)


def test_an_interrupted_run_that_goes_on_is_one_run_and_is_complete_at_its_end(
    runs_uri: str, quick: dict[str, Any], shared_colours: Path, tmp_path: Path, in_step: Any, histories: Any
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
    assert {"interrupted", "resume"} < set(made.data.tags)
    values = histories(runs_uri, made.info.run_id)
    assert [step for step, _ in values["train_loss"]] == list(range(1, 9))


def test_a_process_that_is_killed_leaves_a_failed_run_behind(
    run: Path, runs_uri: str, begin: Any, log_event: Any
) -> None:
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


def test_the_side_process_is_out_of_reach_of_the_terminals_ctrl_c_and_gives_way(run: Path, runs_uri: str) -> None:
    with TrackingSidecar() as sidecar:
        sidecar.begin(run, runs_uri)
        assert sidecar._process is not None
        assert os.getsid(sidecar._process.pid) != os.getsid(0)
    assert until(run, lambda state: state.is_complete(run))
    tracked = sidecar.tracked()
    assert tracked is not None
    assert tracked.complete
    assert os.getpriority(os.PRIO_PROCESS, os.getpid()) < 19
