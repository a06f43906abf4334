"""Training learns, leaves a complete run folder, and refuses what it cannot use."""

import gc
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixtures.picture_kinds import SIDE, png_16
from fixtures.pictures import COLOURS, coloured_picture
from lensmith.config import TrainSettings
from lensmith.data.image_set import ImageSet
from lensmith.data.split import prepare
from lensmith.errors import DataError, OutputError, RunError, SettingsError
from lensmith.training import end_of_epoch
from lensmith.training.learner import Learner
from lensmith.training.microbatch.microbatch import StepResult
from lensmith.training.result import RunResult
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer

Train = Callable[..., RunResult]


@pytest.fixture
def train(quick: dict[str, Any], shared_colours: Path, tmp_path: Path, _no_plots: None) -> Train:
    """Train on the colours by the quick settings and the keywords."""
    given = {**quick, "data": shared_colours, "out": tmp_path / "run"}
    return lambda **changes: Trainer().start(TrainSettings.model_validate({**given, **changes}))


@pytest.mark.slow
def test_it_learns_the_colours(trained: Path) -> None:
    fitted = RunResult.read(Run.open(trained))
    assert fitted.metrics["val_accuracy"] >= 0.9
    assert (fitted.epochs, fitted.steps) == (8, 24)
    first, last = Run.open(trained).history()[0], Run.open(trained).history()[-1]
    assert last["train_loss"] < first["train_loss"]
    assert fitted.images_per_second > 0


def test_the_run_folder_is_complete(trained: Path) -> None:
    files = {file.relative_to(trained).as_posix() for file in trained.rglob("*") if file.is_file()}
    files.discard("image_hashes.npz")  # of an export, where another test has made one
    assert files == {
        "run.json", "splits.csv", "events.jsonl", "curves.png", "memory.png", ".lock",
        "checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt",
    }  # fmt: skip
    epochs = Run.open(trained).history()
    assert [line["epoch"] for line in epochs] == list(range(1, 9))
    assert [line["phase"] for line in epochs] == ["head"] + ["all"] * 7
    assert [line["step"] for line in epochs] == list(range(3, 25, 3))
    assert {line["images"] for line in epochs} == {12}
    assert all(0 <= line["data_wait_share"] <= 1 for line in epochs)
    assert [line["phase"] for line in Run.open(trained).read_events("phase")] == ["head", "all"]
    assert Run.open(trained).read_events("end")[0]["step"] == 24


def test_events_without_the_best_epoch_are_no_result(trained: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    run.events.write_text(run.events.read_text().replace('"best": true', '"best": false'))
    with pytest.raises(RunError, match="The best one is missing"):
        RunResult.read(run)


def test_the_best_checkpoint_is_of_the_best_epoch(trained: Path) -> None:
    fitted, history = RunResult.read(Run.open(trained)), Run.open(trained).history()
    assert fitted.best_epoch == 1 + min(range(8), key=lambda number: history[number]["val_loss"])
    assert checkpoint.load(trained / "checkpoints/best.pt")["epoch"] == fitted.best_epoch


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train: Train, tmp_path: Path) -> None:
    weights = [train(epochs=1, seed=seed, out=tmp_path / name) for seed, name in ((0, "a"), (0, "b"), (1, "c"))]
    first, again, other = (checkpoint.load(fitted.run.best)["model"]["fc.weight"] for fitted in weights)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def write_16_bit(root: Path, scale: int, labels: Iterable[str] = COLOURS) -> Path:
    """A set of 16-bit colour PNGs, whose values are those of 8 bits times `scale`."""
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            picture = np.asarray(coloured_picture(COLOURS[label], number, (SIDE, SIDE)))
            (root / label / f"{number}.png").write_bytes(png_16(scale, "RGB")(picture, 1))
    return root


def test_a_set_of_12_bits_teaches_what_one_of_full_16_bits_does(train: Train, tmp_path: Path) -> None:
    fitted = [
        train(data=write_16_bit(tmp_path / name, scale), epochs=2, out=tmp_path / f"run-{name}")
        for name, scale in (("twelve", 16), ("sixteen", 257))
    ]
    ranges = [Run.open(each.run.path).preprocessing.value_ranges for each in fitted]
    assert ranges == [{"uint16": (0, 4095)}, {"uint16": (0, 65535)}]
    assert "uint16 from 0 (black) to 4,095 (white)" in Run.open(fitted[0].run.path).images.notes[-1]
    first, second = (checkpoint.load(each.run.best)["model"]["fc.weight"] for each in fitted)
    assert torch.equal(first, second)
    assert fitted[0].metrics["val_accuracy"] == fitted[1].metrics["val_accuracy"]
    with pytest.raises(SettingsError, match=r"4,095.*65,535"):  # of what it would see in other brightness
        train(data=tmp_path / "twelve", teacher=fitted[1].run.path, out=tmp_path / "student")


def test_a_set_of_two_value_ranges_is_refused_before_anything_is_written(train: Train, tmp_path: Path) -> None:
    write_16_bit(tmp_path / "set", 16, ("red", "blue"))
    write_16_bit(tmp_path / "set", 257, ("green",))
    with pytest.raises(DataError, match=r"blue/.*green/"):
        train(data=tmp_path / "set")
    assert not (tmp_path / "run").exists()


def test_images_that_become_corrupt_are_named_and_the_run_goes_on(
    train: Train, colours: Path, lose: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    images = prepare(colours, (5, 3, 2), 0)
    lost = [images.part(part)[0].path for part in images.parts]
    lose(lost)
    fitted = train(data=colours, epochs=2)
    named = fitted.run.read_events("left_out")
    assert [line["path"] for line in named] == lost[:2]  # once each, and the test part is not touched
    assert all("image" in line["reason"] for line in named)
    assert {line["images"] for line in fitted.run.history()} == {11}
    assert f"left out: {lost[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_that_loses_all_its_images_is_an_error_of_the_data(
    train: Train, colours: Path, part: Any, lose: Callable[[list[str]], None]
) -> None:
    lose([sample.path for sample in prepare(colours, (5, 3, 2), 0).part(part)])
    with pytest.raises(DataError, match=r"None of .* can.*lensmith data check"):
        train(data=colours)


def test_early_stopping_waits_for_its_patience_by_what_is_monitored(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1, 2, 3, 2, 4, 3, 3, 3, 3])
    monkeypatch.setattr(end_of_epoch.ModelOutputs, "score", lambda _, by: next(scores) if by == "accuracy" else None)
    fitted = train(epochs=9, patience=3, head_epochs=1, monitor="accuracy")
    assert (fitted.best_epoch, fitted.epochs) == (5, 8)


def test_the_head_s_phase_runs_to_its_end_whatever_the_patience(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_of_epoch.ModelOutputs, "score", lambda *_: 1.0)  # never better than the first
    fitted = train(epochs=9, patience=1, head_epochs=4)
    assert (fitted.best_epoch, fitted.epochs) == (1, 5)


@pytest.mark.parametrize(("max_steps", "epochs"), [(1, 1), (3, 1), (4, 2)])
def test_max_steps_ends_the_run_whatever_the_epoch(train: Train, max_steps: int, epochs: int) -> None:
    fitted = train(max_steps=max_steps)
    assert (fitted.steps, fitted.epochs) == (max_steps, epochs)


@pytest.mark.parametrize(
    ("model", "optimizer", "lr"), [("test_efficientnet", "adamw", 3e-3), ("test_vit", "sgd", 0.02)]
)
def test_other_backbones_and_optimizers_learn_too(train: Train, model: str, optimizer: str, lr: float) -> None:
    fitted = train(model=model, optimizer=optimizer, lr=lr, epochs=3)
    history = fitted.run.history()
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_every_precision_trains_and_is_written_down(train: Train, precision: str) -> None:
    fitted = train(precision=precision, epochs=2)
    used = [line["precision"] for line in fitted.run.read_events("phase")]
    assert used == [precision] * 2 or (precision == "auto" and set(used) <= {"fp32", "bf16"})
    assert all(math.isfinite(line["val_loss"]) for line in fitted.run.history())


def test_without_a_validation_part_the_last_epoch_is_the_best(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_train(*given: Any) -> ImageSet:
        images = prepare(*given)
        return replace(images, samples=images.part("train"))

    monkeypatch.setattr("lensmith.training.trainer.prepare", only_train)
    fitted = train(epochs=3)
    assert fitted.metrics == {"val_loss": None, "val_accuracy": None}
    assert fitted.best_epoch == 3


def test_a_class_with_one_image_is_refused_and_nothing_is_written(train: Train, colours: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted((colours / "green").iterdir())):
        if number:
            file.unlink()
    with pytest.raises(DataError, match=r"at least 2 images.*fewer in: green"):
        train(data=colours)
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_training_image_is_refused(train: Train, colours: Path) -> None:
    rows = [f"{s.path},{s.path.split('/')[0]},{s.part}" for s in prepare(colours, (5, 3, 2), 0).samples]
    rows = [row.replace(",train", ",val") if row.startswith("green") else row for row in rows]
    (colours / "splits.csv").write_text("\n".join(["path,label,split", *rows]))
    with pytest.raises(DataError, match="fewer in: green"):
        train(data=colours)


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "meta:x"])
def test_a_device_that_is_not_there_is_refused(train: Train, tmp_path: Path, device: str) -> None:
    with pytest.raises(SettingsError, match="A device that this machine has"):
        train(device=device)
    assert not (tmp_path / "run").exists()


def test_weights_that_went_bad_in_the_last_step_are_not_taken_for_the_best(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Learner.training_step

    def spoil(self: Learner, *given: Any) -> StepResult:
        outcome = plain(self, *given)
        with torch.no_grad():
            self.network.head.bias.fill_(math.nan)
        return outcome

    monkeypatch.setattr(Learner, "training_step", spoil)
    with pytest.raises(RunError, match="A finite validation loss"):
        train(batch_size=32)
    assert not (tmp_path / "run/checkpoints/best.pt").exists()


def test_a_fault_in_a_step_leaves_no_data_workers_behind(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Learner, "training_step", fail)
    with pytest.raises(ZeroDivisionError) as raised:
        train(loader_workers=2)
    assert raised.tb is not None  # the frames are still held, as a notebook holds them
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_runs_leave_no_file_open(train: Train, tmp_path: Path) -> None:
    def opened() -> int:
        gc.collect()  # what a circle of references holds is not lost, only late
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    train(out=tmp_path / "first", epochs=1, loader_workers=1)
    before = opened()
    for number in range(2):
        train(out=tmp_path / f"run{number}", epochs=1, loader_workers=1)
    assert opened() <= before


def test_the_loop_needs_no_terminal_thread(train: Train) -> None:
    """A notebook or a server may train in a thread, where signals cannot be caught."""
    from threading import Thread

    done: list[RunResult] = []
    thread = Thread(target=lambda: done.append(train(epochs=1)))
    thread.start()
    thread.join()
    assert done[0].epochs == 1


def test_files_that_are_set_aside_are_named(
    train: Train, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (colours / "red" / "zero.png").touch()
    (colours / "red" / "notes.txt").write_bytes(b"x")
    train(data=colours, epochs=1)
    assert {line["path"] for line in Run.open(tmp_path / "run").read_events("left_out")} == {
        "red/zero.png",
        "red/notes.txt",
    }
    said = capsys.readouterr().err
    assert "red/zero.png" in said
    assert "3 classes" in said


def test_a_run_that_never_began_leaves_no_folder(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space"):
        train()
    assert not (tmp_path / "run").exists()


def test_a_run_folder_among_the_images_is_refused(train: Train, shared_colours: Path) -> None:
    with pytest.raises(OutputError, match="class of the next run"):
        train(out=shared_colours / "run")
    assert not (shared_colours / "run").exists()


def test_told_to_stop_while_validating_last_it_stops_and_can_be_finished(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = end_of_epoch.compute_outputs

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return honest(*args)

    monkeypatch.setattr(end_of_epoch, "compute_outputs", interrupted)
    with pytest.raises(RunInterruptedError):
        train(epochs=1)
    monkeypatch.setattr(end_of_epoch, "compute_outputs", honest)
    assert Trainer().resume(tmp_path / "run").epochs == 1
