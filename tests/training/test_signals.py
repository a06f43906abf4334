"""Ctrl-C and SIGTERM end a run at a step boundary, saved, and with the way to go on."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.cli import main
from lensmith.training.learner import Learner
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import EXIT_CODES, Interruption


def test_a_signal_is_a_flag_and_a_second_one_is_the_system_s_again() -> None:
    with Interruption() as interruption:
        assert interruption.received is None
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_closed_terminal_stops_a_run_but_not_one_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.received is None
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.received is signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_run_is_saved_though_its_terminal_is_closed(arguments: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "lensmith", *arguments])
    os.set_blocking(terminal, False)

    def has_begun() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 65_536)
        return (run / "run.json").exists() and bool(Run.open(run).history())

    wait_until(has_begun)
    os.close(terminal)  # the system sends SIGHUP, and what is written fails from now on
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert Run.open(run).read_events("interrupted")[0]["signal"] == "SIGHUP"


def test_handlers_are_put_back_also_after_an_error() -> None:
    before = [signal.getsignal(number) for number in EXIT_CODES]

    def fail() -> None:
        with Interruption():
            assert [signal.getsignal(number) for number in EXIT_CODES] != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [signal.getsignal(number) for number in EXIT_CODES] == before


@pytest.fixture
def arguments(quick: dict[str, Any], shared_colours: Path, tmp_path: Path, _no_plots: None) -> list[str]:
    """Arguments of `lensmith train` into tmp_path/run, for a minute, with two data-loader workers."""
    del quick["pretrained"]
    # A head on features needs no workers, so there is no phase of its own.
    chosen = {**quick, "epochs": 400, "patience": 400, "head_epochs": 0, "out": tmp_path / "run", "loader_workers": 2}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    return ["train", str(shared_colours), "--no-pretrained", *flags]


def in_group(leader: int) -> list[int]:
    """The processes of a group."""
    found = subprocess.run(["pgrep", "-g", str(leader)], capture_output=True, text=True, check=False)
    return [int(number) for number in found.stdout.split()]


def wait_until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", EXIT_CODES, ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_saves_and_says_how_to_go_on(
    arguments: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    # With several threads in a data worker, as users have them, each could be hit by a signal.
    process = subprocess.Popen(
        [sys.executable, "-m", "lensmith", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    run = tmp_path / "run"
    wait_until(lambda: process.poll() is not None or ((run / "run.json").exists() and Run.open(run).history()))
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGHUP: 129}[number], err
    assert out == ""
    usual = ("epoch ", "test_resnet on cpu", "Split 5:3:2")
    told = [line for line in err.splitlines() if not line.startswith(usual)]
    assert len(told) == 1, err  # one paragraph, and nothing from the data workers
    assert re.fullmatch(
        rf"lensmith: The run {run} was to take 1,200 steps\. "
        rf"{number.name} stopped it after step [\d,]+, and it is saved\. Resume it with: lensmith train --resume {run}",
        told[0],
    )
    assert not in_group(process.pid)
    assert Run.open(run).read_events("interrupted")[0]["signal"] == number.name


def test_a_second_ctrl_c_does_not_wait_for_the_step(
    arguments: list[str], tmp_path: Path, fork: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def step(*_: Any) -> None:
        for _ in range(2):
            os.killpg(0, signal.SIGINT)
        time.sleep(100)

    monkeypatch.setattr(Learner, "training_step", step)
    child = fork(lambda: (os.setsid(), main(arguments)))
    child.join()
    assert child.exitcode == 130
    assert "Traceback" not in capfd.readouterr().err
    wait_until(lambda: not in_group(child.pid))
    assert [file.name for file in (tmp_path / "run/checkpoints").iterdir()] == ["last.pt"]


def test_data_workers_do_not_outlive_a_killed_run(
    arguments: list[str], fork: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def step(*_: Any) -> None:
        (tmp_path / "workers").write_text(str(len(in_group(os.getpid()))))
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Learner, "training_step", step)
    monkeypatch.setattr("torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL", 0.2)  # 5 s
    child = fork(lambda: (os.setsid(), main(arguments)))
    child.join()
    assert (tmp_path / "workers").read_text() == "3"  # two workers for training, and the run itself
    wait_until(lambda: not in_group(child.pid))
