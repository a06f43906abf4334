"""A short run that may be killed in a process of its own, and what it comes to when nothing happens to it."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.data.image_set import ImageSet
from lensmith.imaging.value_range import ValueRange
from lensmith.training import checkpointing, end_of_epoch, launch, trainer, worker
from lensmith.training.learner import Learner
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer

ForkProcess = multiprocessing.get_context("fork").Process
InChild = Callable[[Callable[[], None]], int]

LOGGED = ("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images", "best")


@pytest.fixture(scope="session")
def fork(_one_thread: None) -> Callable[[Callable[[], object]], Any]:
    """Starts a process that does something, forked from here with all that is imported.

    A forked process has none of the other threads, so there must be none to wait for.
    """

    def start(work: Callable[[], object]) -> Any:
        process = ForkProcess(target=work)
        process.start()
        return process

    return start


@pytest.fixture
def in_child(fork: Callable[[Callable[[], object]], Any]) -> InChild:
    """Does something in a process of its own, and waits for it: its exit code, −9 if killed."""

    def run(work: Callable[[], None]) -> int:
        process = fork(work)
        process.join()
        return int(process.exitcode)

    return run


class _ForkedRank(ForkProcess):
    """As much of `subprocess.Popen` as `launch` uses, for a rank that need not import torch anew."""

    def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
        super().__init__(target=self.work, args=(Path(command[-1]), env))
        self.start()

    @staticmethod
    def work(run: Path, env: dict[str, str]) -> None:
        os.setsid()
        os.environ.update(env)
        sys.exit(worker.main(run))

    def poll(self) -> int | None:
        return self.exitcode

    returncode = property(poll)
    wait = ForkProcess.join

    def send_signal(self, number: int) -> None:
        if self.exitcode is None and self.pid is not None:
            os.kill(self.pid, number)


@pytest.fixture
def _forked_ranks(_one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks are forked from here, with all that a test has patched."""
    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=_ForkedRank, DEVNULL=subprocess.DEVNULL))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Makes files of a run's images unreadable when they have been checked, and the run has not begun."""

    def later(paths: list[str]) -> None:
        plain = trainer._images

        def checked(settings: TrainSettings) -> tuple[ImageSet, dict[str, ValueRange]]:
            images, value_ranges = plain(settings)
            for path in paths:
                (images.root / path).write_bytes(b"broken")
            return images, value_ranges

        monkeypatch.setattr(trainer, "_images", checked)

    return later


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many megabytes."""
    folder = tmp_path / "disk"

    def mount(megabytes: int) -> Path:
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m"]
        if subprocess.run(["mount", *options, "none", folder], capture_output=True).returncode:
            pytest.skip("needs the right to mount")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def equal() -> Callable[[Any, Any], bool]:
    """Equal to the bit, tensors inside containers too."""
    return _equal


@pytest.fixture
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no plots, which takes longer than training."""
    for module in (end_of_epoch, checkpointing):
        monkeypatch.setattr(module, "draw_plots", lambda _: None)


@pytest.fixture
def short(quick: dict[str, Any], shared_colours: Path, tmp_path: Path, _no_plots: None) -> Callable[..., TrainSettings]:
    """Settings of a run of 12 images, 3 epochs and 9 steps, with all that is random in it: order, crops, dropout."""

    def make(**changes: Any) -> TrainSettings:
        chosen = {"data": shared_colours, "out": tmp_path / "run", "epochs": 3, "dropout": 0.5, "batch_norm": "train"}
        return TrainSettings.model_validate({**quick, **chosen, **changes})

    return make


def _came_to(run: Run) -> dict[str, Any]:
    """Weights, optimizer, position and logged figures at a run's end; but for times and memory."""
    last, best = checkpoint.load(run.last), checkpoint.load(run.best)
    learner = {name: value for name, value in last["learner"].items() if name not in ("ladder", "inference")}
    logged = [{name: line[name] for name in LOGGED} for line in run.history()]
    return {"learner": learner, "position": last["position"], "best": best, "logged": logged}


EndsAs = Callable[..., None]


@pytest.fixture
def ends_as(whole: Callable[[TrainSettings], dict[str, Any]], short: Callable[..., TrainSettings]) -> EndsAs:
    """Asserts that a run came to the bits of the uninterrupted short run; keywords change that one's settings."""

    def check(run: Run, **changes: Any) -> None:
        ours = _came_to(run)
        for what, value in whole(short(**changes)).items():
            assert _equal(ours[what], value), what

    return check


@pytest.fixture(scope="session")
def whole(
    _one_thread: None, shared_colours: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[TrainSettings], dict[str, Any]]:
    """What the uninterrupted run comes to; trained once for each settings."""
    made: dict[str, dict[str, Any]] = {}

    def once(settings: TrainSettings) -> dict[str, Any]:
        key = settings.model_dump_json(exclude={"out", "loader_workers", "save_minutes"})
        if key not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            made[key] = _came_to(Trainer().start(settings.model_copy(update={"out": out})).run)
        return made[key]

    return once


@pytest.fixture
def train_in_child(in_child: InChild) -> Callable[[TrainSettings], int]:
    """Train in a process of its own: its exit code."""

    def run(settings: TrainSettings) -> int:
        def work() -> None:
            try:
                Trainer().start(settings)
            except RunInterruptedError as error:
                sys.exit(error.exit_code)

        return in_child(work)

    return run


def _killed(plain: Callable[..., Any], at: int, number: signal.Signals) -> Callable[..., Any]:
    """`training_step` with a real signal in step `at`; SIGKILL when the weights have moved, but nothing is saved."""

    def take(self: Learner, batch: Any, plan: Any, step: int, *others: Any) -> Any:
        if step == at and number is signal.SIGTERM:
            os.kill(os.getpid(), number)
        outcome = plain(self, batch, plan, step, *others)
        if step == at and number is signal.SIGKILL:
            os.kill(os.getpid(), number)
        return outcome

    return take


@pytest.fixture
def stopped(
    train_in_child: Callable[[TrainSettings], int],
    monkeypatch: pytest.MonkeyPatch,
    short: Callable[..., TrainSettings],
) -> Callable[..., Path]:
    """The short run, with a signal in a 0-based step: its folder. Keywords change its settings."""

    def stop(at: int, number: signal.Signals = signal.SIGKILL, **changes: Any) -> Path:
        settings = short(**changes)
        with monkeypatch.context() as patched:
            patched.setattr(Learner, "training_step", _killed(Learner.training_step, at, number))
            code = train_in_child(settings)
        assert code == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75}[number]
        return Path(str(settings.out))

    return stop


@pytest.fixture(scope="module")
def _little_to_collect() -> None:
    """Each retry collects garbage, which takes the longer the more modules are imported."""
    gc.collect()
    gc.freeze()  # for good: unfreezing would let all later collections walk through what was imported, too
