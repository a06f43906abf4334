"""Fine-tuning that spoils the network is stopped, and what fluctuates or recovers is not."""

import math
from typing import Any

import pytest
import torch

from lensmith.training.divergence import PATIENCE, has_diverged, update_divergence, useless_message
from lensmith.training.run_dir.progress import Position
from lensmith.training.schedule import Phase
from lensmith.training.trainer import Trainer
from lensmith.training.validate import ModelOutputs

HEAD, WHOLE = Phase("head", 0, 2, 0, is_head_warmup=True), Phase("all", 2, 10, None)


def answers(right: int, images: int, classes: int = 3, gap: float = 2.0) -> ModelOutputs:
    """Outputs of which `right` are correct; each answer is ahead by `gap`."""
    labels = torch.arange(images) % classes
    answered = torch.where(torch.arange(images) < right, labels, (labels + 1) % classes)
    return ModelOutputs(gap * torch.nn.functional.one_hot(answered, classes).float(), labels, [], [])


def counted(epochs: list[ModelOutputs], accuracy: float | None = 0.9167, loss: float | None = 0.3) -> list[int]:
    """How many worse epochs in a row there were after each, where the phase began at this accuracy and loss."""
    at, found = Position(epoch=2, best_accuracy=accuracy, best_loss=loss), []
    for outputs in epochs:
        update_divergence(at, WHOLE, outputs, 0.1, classes=3)
        at.epoch += 1
        found.append(at.worse)
    return found


def test_an_accuracy_that_falls_towards_guessing_counts_and_one_good_epoch_ends_the_row() -> None:
    bad, good = answers(6, 12), answers(10, 12)
    assert counted([bad, bad, bad]) == [1, 2, 3]
    assert counted([bad, good, bad]) == [1, 0, 1]
    assert has_diverged(Position(worse=PATIENCE))
    assert not has_diverged(Position(worse=PATIENCE - 1))


@pytest.mark.parametrize(("right", "images"), [(9, 12), (2, 4), (80, 100)])
def test_what_chance_or_a_warm_up_explains_does_not_count(right: int, images: int) -> None:
    assert counted([answers(right, images)] * 3) == [0, 0, 0]


def test_a_loss_that_explodes_counts_though_the_accuracy_stays_unless_more_answers_are_right() -> None:
    assert counted([answers(11, 12, gap=100.0)] * 2, accuracy=answers(11, 12).accuracy) == [1, 2]
    assert counted([answers(11, 12, gap=100.0)] * 2, accuracy=10 / 12) == [0, 0]


def test_the_first_phase_has_nothing_to_lose() -> None:
    assert counted([answers(0, 100)] * 3, accuracy=None, loss=None) == [0, 0, 0]
    at = Position(epoch=1, best_accuracy=0.9, best_loss=0.1)
    assert not update_divergence(at, HEAD, answers(0, 100), 9.0, classes=3)


@pytest.mark.parametrize(
    ("accuracy", "loss", "said"),
    [(1 / 3, 854.0, True), (0.2, 2.3, True), (1 / 3, 1.12, False), (0.5, 854.0, False), (None, 854.0, False),
     (None, None, False)],
)  # fmt: skip
def test_a_run_that_ends_no_better_than_guessing_says_so(
    accuracy: float | None, loss: float | None, said: bool
) -> None:
    at = Position(best_epoch=2, best_accuracy=accuracy, best_loss=loss)
    message = useless_message(at, 3, 10.0)
    assert bool(message) == said
    assert not said or ("--lr 1" in message and "epoch 2" in message and "a loss of 1.1:" in message)


def test_without_a_validation_part_the_training_loss_tells() -> None:
    at, limit = Position(epoch=2, best_loss=0.5), 0.5 + 2 * math.log(3)
    assert [update_divergence(at, WHOLE, None, loss, classes=3) for loss in (limit - 0.01, limit + 0.01)] == [
        False,
        True,
    ]


@pytest.mark.slow
def test_a_spoiled_run_stops_says_so_and_keeps_the_network_from_before(
    short: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = {"lr": 0.3, "optimizer": "sgd", "warmup": 0.0, "clip_norm": None}
    result = Trainer().start(short(epochs=7, head_epochs=1, head_solver="lbfgs", dropout=0.0, **wild))
    [event] = result.run.read_events("diverged")
    assert (event["kept_epoch"], result.best_epoch, result.epochs) == (1, 1, 1 + PATIENCE)
    assert result.run.is_finished
    assert "much worse" in capsys.readouterr().err
