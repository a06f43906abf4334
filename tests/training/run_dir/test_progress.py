"""Where a run stands: which epoch is the best, when the rate falls, when it ends; and what its ranks have counted."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from lensmith.config import TrainSettings
from lensmith.training.run_dir.progress import Figures, Position


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({"data": "photos", "epochs": 10, **changes})


def judged(scores: list[float | None], chosen: TrainSettings, head_epochs: int = 0) -> tuple[Position, list[bool]]:
    """Where epochs with these scores lead, and which of them were the best so far."""
    at = Position()
    return at, [at.judge(score, epoch >= head_epochs, chosen) for epoch, score in enumerate(scores)]


def test_an_epoch_is_the_best_where_it_is_better_than_all_before() -> None:
    at, best = judged([-1.0, -0.5, -0.7, -0.5, -0.4], settings())
    assert best == [True, True, False, False, True]
    assert at.best_score == -0.4


def test_a_tie_is_not_better() -> None:
    assert judged([0.9, 0.9], settings())[1] == [True, False]


def test_without_a_score_the_last_epoch_is_the_best_and_patience_never_ends() -> None:
    at, best = judged([None] * 9, settings(patience=1, schedule="plateau", plateau_patience=1))
    assert best == [True] * 9
    assert (at.stale, at.flat, at.factor) == (0, 0, 1.0)


def test_patience_counts_epochs_of_the_last_phase_since_the_best() -> None:
    assert judged([0.9, 0.8, 0.7, 0.6], settings(), head_epochs=3)[0].stale == 1
    assert judged([0.9, 0.8, 0.7, 0.6], settings())[0].stale == 3
    assert judged([0.9, 0.8, 0.7, 1.0], settings())[0].stale == 0


def test_a_plateau_lowers_the_rate_and_is_waited_for_anew() -> None:
    chosen = settings(schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    factors = [judged([0.9, *[0.1] * count], chosen)[0].factor for count in range(6)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_better_epoch_in_between_puts_the_plateau_off_and_leaves_the_rate_low() -> None:
    chosen = settings(schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    assert judged([0.5, 0.4, 0.6, 0.5], chosen)[0].factor == 1.0
    at = judged([0.5, 0.4, 0.4, 0.6, 0.5], chosen)[0]
    assert (at.factor, at.flat) == (0.5, 1)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_other_schedules_know_no_plateau(schedule: str) -> None:
    assert judged([0.9, *[0.1] * 9], settings(schedule=schedule))[0].factor == 1.0


def test_the_next_epoch_begins_at_its_first_batch() -> None:
    at = Position(epoch=2, batch=7, step=21)
    at.next_epoch(settings(), total_steps=70)
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
    at.next_epoch(settings(patience=5), total_steps=70)
    assert at.finished == finished


def test_position_and_figures_survive_a_file() -> None:
    at = Position(epoch=3, batch=2, step=11, best_score=-0.1 / 3, stale=1, factor=0.1, flat=1, finished=True)
    assert Position(**json.loads(json.dumps(asdict(at)))) == at
    figures = Figures(8, 8.5, 1 / 3, 5.0, 0.1, 0.01, 2, 1, 10**12)
    assert Figures(**json.loads(json.dumps(figures.as_dict()))) == figures


def test_figures_are_means_over_what_was_seen() -> None:
    figures = Figures(seen=8, weight=16.0, loss_sum=4.0, correct=6.0, seconds=2.0)
    assert (figures.loss, figures.accuracy, figures.images_per_second) == (0.25, 0.75, 4.0)
    assert (Figures().loss, Figures().accuracy, Figures().images_per_second) == (0.0, 0.0, 0.0)


def test_ranks_add_up_what_they_saw_and_share_the_time() -> None:
    ranks = [Figures(8, 4.0, 3.0, 5.0, 2.0, 0.5, 1, 2, 700), Figures(4, 2.0, 1.5, 1.0, 1.5, 1.0, 3, 2, 900)]
    both = Figures.of_all([rank.as_dict() for rank in ranks])
    assert both == Figures(12, 6.0, 4.5, 6.0, 2.0, 1.0, 3, 2, 900)
    assert (both.loss, both.accuracy, both.images_per_second) == (0.75, 0.5, 6.0)


def test_one_rank_alone_has_its_own_figures() -> None:
    figures = Figures(8, 4.0, 3.0, 5.0, 2.0, 0.5, 1, 2, 700)
    assert Figures.of_all([figures.as_dict()]) == figures
