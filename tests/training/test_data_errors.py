"""What is wrong with images and losses is named by files, once, and does no harm before it is seen."""

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.split import prepare
from lensmith.errors import DataError, RunError
from lensmith.training.data_errors import DataErrors
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.learner import Learner
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.microbatch import StepResult
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer

Spoil = Callable[..., dict[int, list[str]]]

STEPS_PER_EPOCH = 3
"""Of the short run of conftest.py, which has three epochs."""


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch, shared_colours: Path) -> Spoil:
    """Let the loss of some 0-based steps be no number; the files of every step, as they are taken."""
    plain_take, plain_loss = Learner.training_step, Learner._loss
    under_way = [-1]

    def spoiled(steps: Sequence[int], watch: Callable[[Learner, StepResult], None] = lambda *_: None) -> Any:
        training = prepare(shared_colours, (5, 3, 2), 0).part("train")
        taken: dict[int, list[str]] = {}

        def take(self: Learner, batch: Batch, plan: Any, step: int, *others: Any) -> StepResult:
            under_way[0], taken[step] = step, [training[index].path for index in batch.indices]
            outcome = plain_take(self, batch, plan, step, *others)
            watch(self, outcome)
            return outcome

        def loss(self: Learner, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
            value, sums = plain_loss(self, *given)
            factor = math.nan if under_way[0] in steps else 1.0
            return value * factor, sums * factor

        monkeypatch.setattr(Learner, "training_step", take)
        monkeypatch.setattr(Learner, "_loss", loss)
        return taken

    return spoiled


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (folder / "events.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key != "time"} for line in lines if line["event"] == name]


def is_finite(state: Any) -> bool:
    if isinstance(state, dict):
        return all(map(is_finite, state.values()))
    return not isinstance(state, torch.Tensor) or bool(torch.isfinite(state).all())


@pytest.mark.parametrize("step", [0, 4, 8])
def test_a_loss_that_is_no_number_names_its_step_and_files_and_is_never_saved(
    step: int, short: Any, spoil: Spoil, tmp_path: Path
) -> None:
    taken = spoil([step])
    with pytest.raises(RunError) as raised:
        Trainer().start(short(lr=0.01))
    error = raised.value
    assert error.expected == f"A finite training loss was expected at step {step + 1}."
    assert error.arrived == f"It is not a number; the batch was {', '.join(taken[step])}."
    assert "--lr 0.001" in error.remedy
    assert "--on-nan skip" in error.remedy
    assert events(tmp_path / "run", "not_a_number") == [
        {"event": "not_a_number", "step": step + 1, "files": taken[step]}
    ]
    last = checkpoint.load(tmp_path / "run/checkpoints/last.pt")
    assert last["position"]["step"] == step // STEPS_PER_EPOCH * STEPS_PER_EPOCH
    assert is_finite(last["learner"]["model"])


def test_of_a_large_batch_the_error_names_a_few_files_and_the_event_all(
    short: Any, spoil: Spoil, tmp_path: Path
) -> None:
    taken = spoil([0])
    with pytest.raises(RunError, match="and 7 more") as raised:
        Trainer().start(short(batch_size=12))
    assert [file in raised.value.arrived for file in taken[0]] == [True] * 5 + [False] * 7
    assert events(tmp_path / "run", "not_a_number")[0]["files"] == taken[0]


def test_a_skipped_step_is_named_and_the_run_goes_on_to_its_end(
    short: Any, spoil: Spoil, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = spoil([4])
    fitted = Trainer().start(short(on_nan="skip"))
    assert (fitted.epochs, fitted.steps) == (3, 9)
    assert events(fitted.run.path, "skipped") == [{"event": "skipped", "step": 5, "files": taken[4]}]
    assert f"skipped: the loss of step 5 is not a number: {', '.join(taken[4])}" in capsys.readouterr().err
    history = fitted.run.history()
    assert [line["skipped_steps"] for line in history] == [0, 1, 0]
    assert [line["images"] for line in history] == [12, 8, 12]
    assert all(math.isfinite(line["train_loss"]) for line in history)


def test_a_skipped_step_moves_nothing(short: Any, spoil: Spoil) -> None:
    seen: list[tuple[StepVerdict, dict[str, Any]]] = []

    def watch(learner: Learner, outcome: StepResult) -> None:
        seen.append((outcome.verdict, copy.deepcopy(learner.state())))
        assert all(parameter.grad is None for parameter in learner.model.parameters())

    spoil([4], watch)
    Trainer().start(short(on_nan="skip", ema=0.9, optimizer="sgd", precision="fp16"))
    assert [verdict for verdict, _ in seen] == [StepVerdict.FINE] * 4 + [StepVerdict.NOT_A_NUMBER] + [
        StepVerdict.FINE
    ] * 4
    before, after, later = (seen[number][1] for number in (3, 4, 5))
    for what in ("model", "ema", "scaler"):
        assert all(torch.equal(torch.as_tensor(after[what][name]), torch.as_tensor(value))
                   for name, value in before[what].items())  # fmt: skip
    momentum = [state["optimizer"]["state"][0]["momentum_buffer"] for state in (before, after, later)]
    assert torch.equal(momentum[0], momentum[1])
    assert not torch.equal(momentum[1], momentum[2])


def test_looking_for_steps_to_skip_changes_nothing_where_there_are_none(short: Any, ends_as: Any) -> None:
    ends_as(Trainer().start(short(on_nan="skip")).run)


def test_an_epoch_of_which_every_step_was_skipped_is_an_error(short: Any, spoil: Spoil, tmp_path: Path) -> None:
    spoil([3, 4, 5])
    with pytest.raises(RunError, match=r"finite loss were expected in epoch 2\. All 3 were skipped\. .*--lr"):
        Trainer().start(short(on_nan="skip"))
    assert [line["step"] for line in events(tmp_path / "run", "skipped")] == [4, 5, 6]
    assert [line["epoch"] for line in Run.open(tmp_path / "run").history()] == [1]


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Callable[..., DataErrors]]:
    """Of three images, one of each class, which no file needs to stand for."""
    with Recorder(tmp_path / "events.jsonl", epochs=1, steps_per_epoch=1) as recorder:

        def make(labels: Sequence[str] = ("blue", "green", "red"), **changes: Any) -> DataErrors:
            samples = tuple(Sample(f"{label}/0.png", number, "train") for number, label in enumerate(labels))
            settings = TrainSettings.model_validate({"data": tmp_path, **changes})
            return DataErrors(ImageSet(tmp_path, tuple(labels), samples), settings, recorder)

        yield make


def batch(*labels: int) -> Batch:
    count = len(labels)
    pictures = torch.zeros(count, 4, 4, 3, dtype=torch.uint8)
    return Batch(pictures, torch.tensor(labels), torch.zeros(count, 4), list(range(count)), [])


def test_a_file_is_left_out_once_however_often_it_comes(
    faults: Callable[..., DataErrors], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = faults()
    for _ in range(3):
        made.leave_out([("red/0.png", "It is torn."), ("blue/0.png", "It is empty.")])
    assert [line["path"] for line in events(tmp_path, "left_out")] == ["red/0.png", "blue/0.png"]
    named = ["left out: red/0.png: It is torn.", "left out: blue/0.png: It is empty."]
    assert capsys.readouterr().err.splitlines() == named
    assert made.lost_images == {0, 2}


def test_the_first_of_several_bad_steps_is_named_and_good_ones_are_forgotten(faults: Callable[..., DataErrors]) -> None:
    made, good, bad = faults(), torch.tensor(0.5), torch.tensor(math.inf)
    made.watch(0, batch(0), good)
    made.require_finite()
    made.watch(1, batch(0, 1, 2), good)
    made.watch(2, batch(0, 1), bad)
    made.watch(3, batch(0), bad)
    with pytest.raises(RunError, match=r"step 3\. .*the batch was blue/0\.png, green/0\.png\."):
        made.require_finite()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_no_number_is_refused(faults: Callable[..., DataErrors], loss: float) -> None:
    with pytest.raises(RunError, match=rf"A finite validation loss was expected\. It is {loss}\. Try"):
        faults().require_finite_validation(loss)
    faults().require_finite_validation(0.5)


def test_the_remedy_leaves_out_what_is_so_already(faults: Callable[..., DataErrors]) -> None:
    for precision, expected in (("auto", True), ("fp32", False)):
        with pytest.raises(RunError) as raised:
            faults(lr=0.01, precision=precision).require_finite_validation(math.nan)
        assert "--lr 0.001" in raised.value.remedy
        assert ("--precision fp32" in raised.value.remedy) == expected


def test_classes_are_named_when_their_last_image_is_lost(faults: Callable[..., DataErrors], tmp_path: Path) -> None:
    made = faults()
    for path in ("red/0.png", "blue/0.png"):
        made.leave_out([(path, "It is torn.")])
        made.name_lost_classes()
        made.name_lost_classes()
    assert [line["label"] for line in events(tmp_path, "class_left_out")] == ["red", "blue"]
    made.leave_out([("green/0.png", "It is torn.")])
    with pytest.raises(DataError, match=r"None of 3 can"):
        made.name_lost_classes()


@pytest.mark.usefixtures("_forked_ranks")
def test_what_any_of_several_processes_cannot_read_any_more_is_named_once(
    short: Any, colours: Path, lose: Callable[[list[str]], None]
) -> None:
    training = prepare(colours, (5, 3, 2), 0).part("train")
    lost = [sample.path for sample in training if sample.path.startswith("green")]
    lose(lost)
    fitted = Trainer().start(short(data=colours, processes=2, epochs=2))
    assert sorted(line["path"] for line in events(fitted.run.path, "left_out")) == sorted(lost)
    assert [line["label"] for line in events(fitted.run.path, "class_left_out")] == ["green"]


def test_weights_that_are_no_numbers_are_refused_where_no_validation_would_notice(trained: Path) -> None:
    model, run = torch.nn.Linear(2, 2), Run.open(trained)
    faults = DataErrors(run.images, run.settings, Recorder(None, 1, 1))
    faults.require_finite_weights(model)
    with torch.no_grad():
        model.bias[1] = float("inf")
    with pytest.raises(RunError, match="Those of bias are not"):
        faults.require_finite_weights(model)
