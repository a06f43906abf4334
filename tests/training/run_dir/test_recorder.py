"""What a run tells while it goes on: lines for programs, and a bar or a line an epoch for people."""

import json
import math
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.training import epoch_steps
from lensmith.training.learner import Learner
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.microbatch import StepResult
from lensmith.training.run_dir.progress import Figures
from lensmith.training.run_dir.recorder import MEMORY_EVERY_S, Recorder
from lensmith.training.trainer import Trainer

FIGURES = Figures(seen=8, weight=4.0, loss_sum=3.0, correct=5.0, seconds=0.025)
"""Of an epoch so far: loss 0.75, accuracy 0.625, 320 images/s."""


def line(epoch: int, phase: str = "all", *, validated: bool = True, **changes: Any) -> dict[str, Any]:
    made = {
        "epoch": epoch, "phase": phase, "step": 3 * epoch, "train_loss": 1 / epoch, "train_accuracy": 0.5,
        "val_loss": 1.1 / epoch if validated else None, "val_accuracy": 0.4 if validated else None, "images": 12,
        "images_per_second": 1234.5, "data_wait_share": 0.1, "seconds": 0.7, "best": True, "chunks": 1,
        "checkpointing": False,
    }  # fmt: skip
    return {**made, **changes}


def outcome(chunks: int = 1, *, checkpointing: bool = False, retries: int = 0, exact: bool = True) -> StepResult:
    return StepResult(torch.zeros(()), None, chunks, checkpointing, retries, StepVerdict.FINE, 8, 8.0, exact)


def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "events.jsonl", epochs=10, steps_per_epoch=3)


def told(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def test_what_a_full_disk_does_not_take_is_written_with_a_later_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with recorder(tmp_path) as made:
        made.event("start", step=0)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))  # in the middle of the second line
            made.event("memory", step=1)
            made.end_epoch(line(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        made.event("end", step=3)
    found = [json.loads(text)["event"] for text in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert found == ["start", "memory", "epoch", "end"]
    assert capsys.readouterr().err.count("events cannot be written") == 1


def test_events_are_appended_a_line_each_and_on_disk_at_once(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"event": "old"}\n')
    before = time.time()
    with recorder(tmp_path) as made:
        made.event("start", step=0)
        assert len(events.read_text().splitlines()) == 2
        made.end_epoch(line(1))
    read = [json.loads(text) for text in events.read_text().splitlines()]
    assert [event["event"] for event in read] == ["old", "start", "epoch"]
    told_at = read[2].pop("time")
    assert before - 0.001 <= told_at <= time.time() + 0.001
    assert read[2] == {"event": "epoch", **line(1)}


def test_people_get_a_line_an_epoch_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with recorder(tmp_path) as made:
        made.begin_epoch(0, "head", 0)
        made.step(1, 1, FIGURES, outcome(), 10**9)
        made.validating(1, 2)
        made.end_epoch(line(1, "head"))
        made.end_epoch(line(2, validated=False, best=False))
        made.end_epoch(line(3, chunks=3))
        made.end_epoch(line(4, chunks=3, checkpointing=True, best=False))
    printed = capsys.readouterr()
    first, second, third, fourth = printed.err.splitlines()
    assert first == (
        "epoch   1/10 head  loss 1.000 accuracy 0.500  val loss 1.100 accuracy 0.400  1,234 images/s 0.7 s  best"
    )
    assert second == "epoch   2/10 all   loss 0.500 accuracy 0.500  1,234 images/s 0.7 s"
    assert third.endswith("0.7 s  3 chunks  best")
    assert fourth.endswith("0.7 s  3 chunks, checkpointing")
    assert printed.out == ""


@pytest.mark.parametrize("watched", [True, False])
def test_brackets_in_a_file_name_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr("lensmith.training.run_dir.recorder.is_terminal", lambda: watched)
    with recorder(tmp_path) as made:
        made.log("left out: cat[/new].jpg")
    assert "cat[/new].jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("result", "chunks"),
    [({}, "1 chunk "), ({"chunks": 4}, "4 chunks "), ({"chunks": 4, "checkpointing": True}, "4 chunks* ")],
)
def test_on_a_terminal_the_bar_shows_figures_memory_and_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, result: Any, chunks: str
) -> None:
    monkeypatch.setattr("lensmith.training.run_dir.recorder.is_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with recorder(tmp_path) as made:
        made.begin_epoch(4, "all", 1)
        made.step(14, 2, FIGURES, outcome(**result), 2_340_000_000)
    shown = capsys.readouterr().err
    for part in ("epoch 5/10 all", "loss 0.750", "accuracy 0.625", "320 images/s", chunks, "2.3 GB", "2/3", "left"):
        assert part in shown


def test_an_event_tells_of_memory_when_the_chunks_change_and_else_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("lensmith.training.run_dir.recorder.time.monotonic", lambda: now[0])
    with recorder(tmp_path) as made:
        for step, chunks in enumerate((1, 1, 2, 2, 2, 1), start=1):
            made.step(step, step, FIGURES, outcome(chunks), 100 * step)
        made.step(7, 7, FIGURES, outcome(checkpointing=True), 700)
        made.step(8, 8, FIGURES, outcome(checkpointing=True), 800)
        now[0] += MEMORY_EVERY_S + 1
        made.step(9, 9, FIGURES, outcome(checkpointing=True), 900)
    written = told(tmp_path, "memory")
    assert [line["step"] for line in written] == [1, 3, 6, 7, 9]
    assert [line["chunks"] for line in written] == [1, 2, 1, 1, 1]
    del written[3]["time"]
    assert written[3] == {
        "event": "memory", "step": 7, "peak_bytes": 700, "chunks": 1, "checkpointing": True, "exact": True
    }  # fmt: skip


def test_of_a_run_each_step_that_ran_out_of_memory_is_told_however_fast_it_is(
    short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Learner.training_step

    def take(self: Learner, batch: Any, plan: Any, step: int, *others: Any) -> StepResult:
        done = plain(self, batch, plan, step, *others)
        return replace(done, retries=1) if step in (1, 4) else done

    monkeypatch.setattr(Learner, "training_step", take)
    monkeypatch.setattr(epoch_steps, "SHOW_EVERY_S", math.inf)
    run = Trainer().start(short()).run
    ran_out = [(line["step"], line["retries"], line["chunks"]) for line in run.read_events("oom")]
    assert ran_out == [(2, 1, 1), (5, 1, 1)]
    assert [line["oom_retries"] for line in run.history()] == [1, 1, 0]


def test_it_is_said_once_when_memory_begins_to_change_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorder(tmp_path) as made:
        for step, exact in enumerate((True, False, False), start=1):
            made.step(step, step, FIGURES, outcome(step, exact=exact), 100)
    assert capsys.readouterr().err == (
        "step 2: chunks below BatchNorm's virtual batch: their number changes the result\n"
    )
    assert [line["exact"] for line in told(tmp_path, "memory")] == [True, False, False]


def test_a_rank_that_leaves_speaking_to_another_says_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder(None, epochs=10, steps_per_epoch=3) as made:
        made.event("start", step=0)
        made.log("left out: cat.jpg")
        made.begin_epoch(0, "all", 0)
        made.step(1, 1, FIGURES, outcome(2, retries=1), 100)
        made.end_epoch(line(1))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert not list(tmp_path.iterdir())
