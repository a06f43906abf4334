"""A run that is killed or told to stop, at any step, ends as if nothing had happened."""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.errors import OutputError, RunError
from lensmith.training import end_of_epoch
from lensmith.training.learner import Learner
from lensmith.training.run_dir import checkpoint, description, find_resumable, lock
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer

EPOCHS, STEPS_PER_EPOCH, IMAGES = 3, 3, 12
STEPS = EPOCHS * STEPS_PER_EPOCH
"""Of the short run of conftest.py."""
EACH_STEP = 1e-9
"""Minutes between checkpoints that make every step write one."""

EndsAs = Callable[..., None]


def recorded(plain: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """`Learner.training_step` that writes down which samples each step has taken."""

    def take(self: Learner, batch: Any, plan: Any, step: int, *others: Any) -> Any:
        outcome = plain(self, batch, plan, step, *others)
        with file.open("a") as stream:
            stream.write(json.dumps([step, sorted(batch.indices)]) + "\n")
        return outcome

    return take


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "minutes"),
    [(signal.SIGKILL, 10.0), (signal.SIGKILL, EACH_STEP), (signal.SIGTERM, 10.0)],
    ids=["SIGKILL", "SIGKILL with a checkpoint a step", "SIGTERM"],
)
@pytest.mark.parametrize("at", [0, 2, 4, STEPS - 1])  # first and last of a phase or an epoch, and in between
def test_ended_in_any_step_and_resumed_it_comes_to_the_same_bits_and_repeats_and_skips_no_sample(
    at: int, number: signal.Signals, minutes: float, stopped: Any, short: Any, whole: Any, ends_as: EndsAs,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    whole(short())  # before steps are recorded
    monkeypatch.setattr(Learner, "training_step", recorded(Learner.training_step, tmp_path / "taken"))
    run = stopped(at, number, save_minutes=minutes)
    before = len((tmp_path / "taken").read_text().splitlines())
    ended = Trainer().resume(run)
    assert ended.steps == STEPS
    ends_as(ended.run)
    lines = [json.loads(line) for line in (tmp_path / "taken").read_text().splitlines()]
    kept = dict(lines)  # a step that was redone counts once
    assert sorted(kept) == list(range(STEPS))
    for epoch in range(EPOCHS):
        steps = range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH)
        assert sorted(itertools.chain.from_iterable(kept[step] for step in steps)) == list(range(IMAGES))
    redone = len(lines) - STEPS
    if number is signal.SIGTERM:
        assert redone == 0
    else:
        assert redone == (1 if minutes == EACH_STEP else at % STEPS_PER_EPOCH + 1)
    assert before <= at + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"optimizer": "sgd", "lr": 0.02, "precision": "fp16"}, signal.SIGKILL),
        ({"ema": 0.9, "mixup": 0.4, "cutmix": 1.0}, signal.SIGTERM),
        ({"schedule": "plateau", "plateau_patience": 1, "monitor": "f1", "clip_norm": 0.1}, signal.SIGKILL),
        ({"sizes": (16, 32), "unfreeze_every": 1, "trainable_stages": 2}, signal.SIGTERM),
        ({"batch_size": 2, "accumulate": 2, "sampling": "balanced"}, signal.SIGKILL),
        ({"max_steps": 6, "augment": "trivial", "class_weights": "balanced"}, signal.SIGTERM),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else value.name,
)
def test_whatever_the_recipe_it_comes_to_the_same_bits(
    changes: dict[str, Any], number: signal.Signals, stopped: Any, ends_as: EndsAs
) -> None:
    run = stopped(4, number, save_minutes=EACH_STEP, **changes)
    ends_as(Trainer().resume(run).run, **changes)


def test_stopped_at_each_step_it_comes_to_the_same_bits(
    stopped: Any, ends_as: EndsAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain = stopped(0, signal.SIGTERM), Learner.training_step

    def take(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "training_step", take)
        for _ in range(STEPS - 1):
            with pytest.raises(RunInterruptedError) as raised:
                Trainer().resume(run)
            assert raised.value.exit_code == 75
            assert f"lensmith train --resume {run}" in raised.value.remedy
    ends_as(Trainer().resume(run).run)


@pytest.mark.parametrize("place", ["compute_outputs", "end_epoch", "best.pt", "last.pt"])
def test_killed_at_the_end_of_an_epoch_it_comes_to_the_same_bits(
    place: str, short: Any, ends_as: EndsAs, train_in_child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = {"compute_outputs": (end_of_epoch, "compute_outputs"), "end_epoch": (Recorder, "end_epoch")}.get(
        place, (checkpoint, "save")
    )
    plain, calls = getattr(owner, name), itertools.count()

    def die(*given: Any) -> Any:
        result = plain(*given)
        here = place == name or given[1].name == place
        if here and next(calls) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        assert train_in_child(short()) == -signal.SIGKILL
    ends_as(Trainer().resume(short().out).run)


@pytest.mark.parametrize("whose", ["the checkpoint's", "the log's"])
def test_a_disk_that_fills_up_stops_the_run_with_a_whole_checkpoint(
    whose: str, small_disk: Any, short: Any, ends_as: EndsAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(20)
    chosen, plain = short(out=disk / "run"), Learner.training_step

    def fill(self: Learner, batch: Any, plan: Any, step: int, *others: Any) -> Any:
        if step == 4:
            left = 10_000 if whose == "the checkpoint's" else 0
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - left))
        return plain(self, batch, plan, step, *others)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "training_step", fill)
        with pytest.raises((OutputError, OSError)):
            Trainer().start(chosen)
    assert sorted(file.name for file in (disk / "run/checkpoints").iterdir()) == ["best.pt", "last.pt", "previous.pt"]
    (disk / "filler").unlink()
    ends_as(Trainer().resume(chosen.out).run)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_the_number_of_data_workers_may_change(before: int, after: int, stopped: Any, ends_as: EndsAs) -> None:
    run = stopped(4, loader_workers=before, save_minutes=EACH_STEP)
    ended = Trainer().resume(run, {"loader_workers": after})
    ends_as(ended.run)
    assert Run.open(run).settings.loader_workers == after
    assert not multiprocessing.active_children()


def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(
    stopped: Any, ends_as: EndsAs, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(5, save_minutes=EACH_STEP)
    last = run / "checkpoints/last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with (run / "events.jsonl").open("a") as file:
        file.write('{"event": "epo')  # as a full disk may have left it
    ended = Trainer().resume(run)
    ends_as(ended.run)
    said = "last.pt cannot be read (its bytes have changed)"
    assert said in capsys.readouterr().err
    lines = (run / "events.jsonl").read_text().splitlines()
    fell_back = json.loads(next(line for line in lines if "fell_back" in line))
    del fell_back["time"]
    assert fell_back == {"event": "fell_back", "reason": said, "step": 4}


@pytest.mark.parametrize(
    ("at", "said"), [(1, r"before its first.*{command}"), (5, r"All of them are gone.*into another folder")]
)
def test_without_a_checkpoint_it_names_the_way_on(stopped: Any, shared_colours: Path, at: int, said: str) -> None:
    run = stopped(at)
    for name in ("last.pt", "previous.pt"):
        (run / "checkpoints" / name).unlink(missing_ok=True)
    with pytest.raises(RunError, match=said.format(command=f"lensmith train {shared_colours} --out {run}")):
        Trainer().resume(run)


def test_another_optimizer_in_the_description_is_noticed_before_the_first_step(stopped: Any) -> None:
    run = stopped(5)
    description = json.loads((run / "run.json").read_text())
    description["settings"]["optimizer"] = "sgd"
    (run / "run.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=r"does not fit .*not of the optimizer sgd"):
        Trainer().resume(run)


def test_a_finished_run_is_resumed_to_the_same_end(short: Any, ends_as: EndsAs) -> None:
    first = Trainer().start(short(epochs=1))
    again = Trainer().resume(first.run.path)
    ends_as(again.run, epochs=1)
    assert (again.best_epoch, again.steps) == (first.best_epoch, first.steps)


def test_a_finished_run_without_its_events_is_no_fault_of_ours(short: Any) -> None:
    run = Trainer().start(short(epochs=1)).run
    run.events.unlink()
    with pytest.raises(RunError, match=r"epochs of a finished run .* lensmith export"):
        Trainer().resume(run.path)


def test_one_process_at_a_time_trains_a_run(stopped: Any, in_child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped(1)
    monkeypatch.setattr(lock, "WAIT_S", 0.2)

    def second() -> None:
        with pytest.raises(RunError, match="Another one is training it"):
            Trainer().resume(run)

    with lock.locked_run(run):
        assert in_child(second) == 0
    assert Trainer().resume(run).steps == STEPS


def test_a_run_killed_after_its_last_epoch_is_resumed_to_its_end(
    short: Any, train_in_child: Any, monkeypatch: pytest.MonkeyPatch, ends_as: EndsAs
) -> None:
    plain, chosen = Recorder.event, short()

    def die(self: Any, name: str, **fields: Any) -> None:
        if name == "end":
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, name, **fields)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "event", die)
        assert train_in_child(chosen) == -signal.SIGKILL
    assert not Run.open(chosen.out).is_finished
    ended = Trainer().resume(chosen.out)
    assert ended.run.is_finished
    ends_as(ended.run)


@pytest.mark.parametrize("place", ["run.json", "first checkpoint"])
def test_killed_before_its_first_checkpoint_nothing_stands_in_the_way_of_beginning_anew(
    place: str, short: Any, train_in_child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    chosen = short(epochs=1)
    with monkeypatch.context() as patched:
        if place == "run.json":
            patched.setattr(description, "_write_json", die)
        else:
            patched.setattr(checkpoint._Sealed, "close", die)
        assert train_in_child(chosen) == -signal.SIGKILL
    assert Path(chosen.out).exists()
    with pytest.raises(RunError):
        Trainer().resume(chosen.out)
    assert find_resumable.find(chosen) is None
    assert Trainer().start(chosen).epochs == 1
