"""A network and its engines are held against what the run reported, image by image."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from lensmith.data.image_set import Sample
from lensmith.errors import ParityError
from lensmith.exporting.run_figures import RunFigures, most_by_chance
from lensmith.training.checkpointing import CORRECT, PATHS
from lensmith.training.run_dir.run import Run
from lensmith.training.validate import ModelOutputs


def figures(images: int, wrong: int = 0, *, stored: bool = True, loss: float = 0.1) -> RunFigures:
    correct = {f"{number}.png": number >= wrong for number in range(images)} if stored else {}
    return RunFigures(3, 1 - wrong / images, loss, images, correct)


def outputs(images: int, wrong: int, loss: float = 0.1) -> tuple[ModelOutputs, list[Sample]]:
    """Outputs of two classes, the first `wrong` of which are wrong, with a mean loss."""
    right = torch.ones(images)
    right[:wrong] = -1
    other = torch.log(torch.expm1(torch.tensor(loss)))  # −log σ(−other) is the loss
    logits = torch.stack([torch.zeros(images), torch.where(right > 0, -other, other.abs())], dim=1)
    outs = ModelOutputs(logits, torch.ones(images, dtype=torch.int64), list(range(images)), [])
    if wrong:
        outs.logits[:wrong, 1] = -outs.logits[:wrong, 1].abs() - 1e-3
    return outs, [Sample(f"{number}.png", 1, "val") for number in range(images)]


@pytest.mark.parametrize("history", [[], [{"epoch": 2, "val_accuracy": 0.5, "val_loss": 1.0}]])
def test_without_the_best_epochs_event_the_checkpoints_answers_are_what_was_reported(history: list[Any]) -> None:
    run = SimpleNamespace(history=lambda: history, images=SimpleNamespace(part=lambda _: range(4)))
    answers = {PATHS: ["0.png", "1.png", "2.png", "3.png"], CORRECT: torch.tensor([True, True, True, False])}
    found = RunFigures.of(cast(Run, run), {"epoch": 3, "validation": answers})
    assert found is not None
    assert (found.epoch, found.accuracy, found.images) == (3, 0.75, 4)
    shipped, samples = outputs(4, wrong=3)
    with pytest.raises(ParityError):
        found.require_network(shipped, samples, None)


def test_a_run_whose_figures_are_gone_is_said_to_be_compared_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    images = SimpleNamespace(part=lambda _: range(4))
    run = SimpleNamespace(history=list, images=images, events=Path("run/events.jsonl"))
    assert RunFigures.of(cast(Run, run), {"epoch": 3}) is None
    assert "not compared with what the run reported: epoch 3" in capsys.readouterr().err


def test_rounding_changes_few_answers() -> None:
    assert [most_by_chance(number) for number in (1, 14, 100, 1000, 10_000)] == [1, 1, 2, 5, 21]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(("images", "lost", "refused"), [(14, 0, False), (14, 1, False), (14, 2, True), (14, 7, True),
    (1000, 5, False), (1000, 6, True)])  # fmt: skip
def test_a_network_may_lose_what_rounding_explains(images: int, lost: int, refused: bool, stored: bool) -> None:
    found, samples = outputs(images, lost)
    reported = figures(images, stored=stored, loss=found.loss)
    if not refused:
        assert reported.require_network(found, samples, None) == pytest.approx(100 * lost / images)
        return
    with pytest.raises(ParityError, match="as the run reported"):
        reported.require_network(found, samples, None)
    reported.require_network(found, samples, 100.0)  # the user accepts it


def test_a_network_that_is_better_than_reported_is_another_one() -> None:
    found, samples = outputs(14, 0)
    with pytest.raises(ParityError, match="more"):
        figures(14, wrong=7, loss=found.loss).require_network(found, samples, None)


def test_answers_that_change_both_ways_lose_nothing_but_the_loss_shows_another_network() -> None:
    found, samples = outputs(14, 0, loss=0.1)
    with pytest.raises(ParityError, match="loss"):
        figures(14, loss=0.5).require_network(found, samples, None)
    assert figures(14, loss=0.11).require_network(found, samples, None) == 0
    with pytest.raises(ParityError, match=r"with more than 0\.5, accepts"):
        figures(14, loss=0.5).require_network(found, samples, 0.5)
    assert figures(14, loss=0.5).require_network(found, samples, 1.0) == 0


@pytest.mark.parametrize("max_drop_pp", [None, 0.0, 0.5, 24.0])
def test_an_answer_of_few_that_is_lost_beyond_the_limit_has_to_be_near_a_tie(max_drop_pp: float | None) -> None:
    sure, samples = outputs(4, 1, loss=0.1)
    with pytest.raises(ParityError, match="loss"):
        figures(4, loss=0.1).require_network(sure, samples, max_drop_pp)
    assert figures(4, loss=0.1).require_network(sure, samples, 25.0) == 25
    tie, samples = outputs(4, 1, loss=0.69)
    assert figures(4, loss=0.69).require_network(tie, samples, max_drop_pp) == 25


def test_the_figure_that_was_told_counts_beside_the_stored_answers() -> None:
    found, samples = outputs(14, 7)
    told = RunFigures(3, 1.0, found.loss, 14, figures(14, wrong=7).correct)
    with pytest.raises(ParityError):
        told.require_network(found, samples, None)


def test_images_that_are_gone_are_not_lost_answers() -> None:
    found, samples = outputs(100, 0)
    fewer = ModelOutputs(found.logits[10:], found.labels[10:], found.indices[10:], [])
    assert figures(100, loss=found.loss).require_network(fewer, samples, None) == 0


def test_an_engine_may_lose_the_limit_and_what_its_selection_on_fewer_images_could_not_see() -> None:
    reported, paths = figures(2000), [f"{number}.png" for number in range(2000)]

    def right(lost: int) -> np.ndarray:
        return np.arange(2000) >= lost

    reported.require_answers(paths, right(10), 0.5, selected_on=2000)
    reported.require_answers(paths, right(20), 0.5, selected_on=1000)
    for lost, selected_on in ((11, 2000), (40, 1000)):
        with pytest.raises(ParityError, match="engine"):
            reported.require_answers(paths, right(lost), 0.5, selected_on=selected_on)
