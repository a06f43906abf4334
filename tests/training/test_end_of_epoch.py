"""Which epoch is the best, when the rate falls on a plateau, and when the run ends."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lensmith.config import TrainSettings
from lensmith.training import checkpointing, end_of_epoch
from lensmith.training.end_of_epoch import next_epoch, update_best
from lensmith.training.run_dir.progress import Position
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import Trainer


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({"data": "photos", "epochs": 10, **changes})


def scored(scores: list[float | None], chosen: TrainSettings, head_epochs: int = 0) -> tuple[Position, list[bool]]:
    """Where epochs with these scores lead, and which of them were the best so far."""
    at = Position()
    return at, [update_best(at, score, epoch >= head_epochs, chosen) for epoch, score in enumerate(scores)]


def test_an_epoch_is_the_best_where_it_is_better_than_all_before() -> None:
    at, best = scored([-1.0, -0.5, -0.7, -0.5, -0.4], settings())
    assert best == [True, True, False, False, True]
    assert at.best_score == -0.4


def test_without_a_score_the_last_epoch_is_the_best_and_patience_never_ends() -> None:
    at, best = scored([None] * 9, settings(patience=1, schedule="plateau", plateau_patience=1))
    assert best == [True] * 9
    assert (at.stale, at.flat, at.factor) == (0, 0, 1.0)


def test_patience_counts_epochs_of_the_last_phase_since_the_best() -> None:
    assert scored([0.9, 0.8, 0.7, 0.6], settings(), head_epochs=3)[0].stale == 1
    assert scored([0.9, 0.8, 0.7, 0.6], settings())[0].stale == 3
    assert scored([0.9, 0.8, 0.7, 1.0], settings())[0].stale == 0


def test_a_plateau_lowers_the_rate_and_is_waited_for_anew() -> None:
    chosen = settings(schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    factors = [scored([0.9, *[0.1] * count], chosen)[0].factor for count in range(6)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_better_epoch_in_between_puts_the_plateau_off_and_leaves_the_rate_low() -> None:
    chosen = settings(schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    assert scored([0.5, 0.4, 0.6, 0.5], chosen)[0].factor == 1.0
    at = scored([0.5, 0.4, 0.4, 0.6, 0.5], chosen)[0]
    assert (at.factor, at.flat) == (0.5, 1)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_other_schedules_know_no_plateau(schedule: str) -> None:
    assert scored([0.9, *[0.1] * 9], settings(schedule=schedule))[0].factor == 1.0


def test_the_next_epoch_begins_at_its_first_batch() -> None:
    at = Position(epoch=2, batch=7, step=21)
    next_epoch(at, settings(), total_steps=70, last_epoch=settings().epochs)
    assert at == Position(epoch=3, batch=0, step=21)


@pytest.mark.parametrize(
    ("at", "finished"),
    [
        (Position(epoch=8, step=63), False),
        (Position(epoch=9, step=69), True),  # the last epoch
        (Position(epoch=1, step=70), True),  # the last step
        (Position(epoch=5, step=42, stale=4), False),
        (Position(epoch=5, step=42, stale=5), True),  # no patience is left
    ],
)
def test_a_run_ends_with_its_epochs_its_steps_or_its_patience(at: Position, finished: bool) -> None:
    next_epoch(at, settings(patience=5), total_steps=70, last_epoch=settings().epochs)
    assert at.finished == finished


@pytest.mark.parametrize(("after_s", "epochs"), [(1e9, [1, 3]), (-1.0, [1, 2, 3])])
def test_plots_are_drawn_after_the_first_and_the_last_epoch_and_where_they_are_old(
    after_s: float, epochs: list[int], quick: dict[str, Any], shared_colours: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    drawn: list[int] = []

    def draw(run: Run) -> None:
        drawn.append(run.history()[-1]["epoch"])
        run.curves.touch()

    monkeypatch.setattr(end_of_epoch, "PLOT_AFTER_S", after_s)
    monkeypatch.setattr(end_of_epoch, "draw_plots", draw)
    chosen = {**quick, "data": shared_colours, "out": tmp_path / "run", "epochs": 3}
    Trainer().start(TrainSettings.model_validate(chosen))
    assert drawn == epochs


def test_plots_are_drawn_where_a_signal_stops_a_run(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(end_of_epoch, "draw_plots", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(checkpointing, "draw_plots", lambda run: drawn.append(run.history()[-1]["epoch"]))
    chosen = {**quick, "data": shared_colours, "out": tmp_path / "run"}
    with pytest.raises(RunInterruptedError):
        Trainer().start(TrainSettings.model_validate(chosen))
    assert drawn == [1]
