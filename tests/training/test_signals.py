"""Ctrl-C and SIGTERM end a run at a step boundary, saved, and with the way to go on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lensmith.training.signals import EXIT_CODES, Interruption

Start = Callable[..., subprocess.Popen[str]]

LENSMITH = (str(Path(sys.executable).with_name("lensmith")),)
SLOW = (
    sys.executable,
    "-c",
    "import time; from lensmith.training.learner import Learner; Learner.training_step = lambda *_: time.sleep(100);"
    "from lensmith.cli import main; main()",
)
"""The same with steps that take longer than anybody waits."""


def test_a_signal_is_a_flag_and_a_second_one_is_the_system_s_again() -> None:
    with Interruption() as interruption:
        assert interruption.received is None
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


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
def start(tmp_path: Path) -> Iterator[Start]:
    """`lensmith` in a process group of its own, standing in tmp_path."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, program: tuple[str, ...] = LENSMITH, **settings: Any) -> subprocess.Popen[str]:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        # With several threads in a data worker, as users have them, each could be hit by a signal.
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        process = subprocess.Popen(
            [*program, *arguments, *flags], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
            start_new_session=True, env=environment,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def train(start: Start, quick: dict[str, Any], shared_colours: Path) -> Start:
    """`lensmith train` into tmp_path/run, for a minute unless told otherwise."""
    del quick["pretrained"]

    def run(**settings: Any) -> subprocess.Popen[str]:
        chosen = {**quick, "epochs": 400, "patience": 400, "out": "run", **settings}
        return start("train", str(shared_colours), "--no-pretrained", **chosen)

    return run


def wait_for(run: Path, event: str, process: subprocess.Popen[str]) -> None:
    """Until the event is in the run's events.jsonl."""
    deadline = time.monotonic() + 120
    while not (run / "events.jsonl").exists() or f'"event": "{event}"' not in (run / "events.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_group(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_saves_and_says_how_to_go_on(
    train: Start, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    process, run = train(loader_workers=workers), tmp_path / "run"
    wait_for(run, "epoch", process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[number]
    assert out == ""
    usual = ("epoch ", "test_resnet on cpu", "Split 5:3:2", "features of 18 images")
    told = [line for line in err.splitlines() if not line.startswith(usual)]
    assert len(told) == 1, err  # one paragraph, and nothing from the data workers
    assert re.fullmatch(
        r"lensmith: The run run was to take 1,200 steps\. "
        rf"{number.name} stopped it after step [\d,]+, and it is saved\. Resume it with: lensmith train --resume run",
        told[0],
    )
    assert not in_group(process.pid)
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["signal"]) == ("interrupted", number.name)


@pytest.mark.slow
def test_what_it_says_goes_on_to_a_bundle(train: Start, start: Start, tmp_path: Path) -> None:
    process, run = train(epochs=12, loader_workers=1), tmp_path / "run"
    wait_for(run, "epoch", process)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    words = err.splitlines()[-1].partition("Resume it with: lensmith train ")[2].split()
    assert words == ["--resume", "run"]
    again = start("train", *words, "--json")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    result = json.loads(out)
    assert (tmp_path / result["bundle"] / "bundle.json").is_file()
    assert result["steps"] == 36
    epochs = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs if line["event"] == "epoch"] == list(range(1, 13))


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_the_step(train: Start, tmp_path: Path) -> None:
    process = train(loader_workers=2, program=SLOW)
    wait_for(tmp_path / "run", "phase", process)
    time.sleep(2)  # until the first step is under way
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not in_group(process.pid)
    assert [file.name for file in (tmp_path / "run/checkpoints").iterdir()] == ["last.pt"]


@pytest.mark.slow
def test_data_workers_do_not_outlive_a_killed_run(train: Start, tmp_path: Path) -> None:
    process = train(loader_workers=2, head_epochs=0)  # a head on features needs no workers
    wait_for(tmp_path / "run", "epoch", process)
    assert len(in_group(process.pid)) == 5  # two for training, two for validation
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while in_group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.2)
