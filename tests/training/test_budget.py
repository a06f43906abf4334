"""What fits into a time budget, from what was measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.config.base import Settings
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.split import prepare
from lensmith.errors import SettingsError
from lensmith.training import budget
from lensmith.training.budget import BudgetPlan, StepTimings, plan
from lensmith.training.run_dir.progress import Position
from lensmith.training.schedule import TrainingSchedule
from lensmith.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5m", 300), ("90s", 90), ("1h30m", 5400), ("1h", 3600), (45, 45), ("1m30s", 90), (1.5, 1.5)],
)
def test_a_duration_can_be_said_in_several_ways(said: Any, seconds: float) -> None:
    assert TrainSettings.model_validate({"data": "photos", "time_budget": said}).time_budget == seconds


@pytest.mark.parametrize("said", ["soon", "5 minutes", "", "90", "-5m", 0, "5x"])
def test_what_is_no_duration_is_refused(said: Any) -> None:
    with pytest.raises(SettingsError, match="time_budget"):
        TrainSettings.resolve({"data": "photos", "time_budget": said})


def planned(
    monkeypatch: pytest.MonkeyPatch, seconds: float, count: int, held: int = 200, native: int = 224, **settings: Any
) -> TrainSettings:
    """With a machine whose every step takes as long as its pixels say: 100 images a second at 112 px."""

    def measure(settings: TrainSettings, images: ImageSet, size: int, device: torch.device) -> StepTimings:
        return StepTimings(112, 0.002, 0.01, 0.001).at(size)

    monkeypatch.setattr(budget, "measure", measure)
    monkeypatch.setattr(budget, "_shorter_side", lambda images: native)
    samples = [Sample(f"{number}", number % 2, "train") for number in range(count)]
    samples += [Sample(f"v{number}", number % 2, "val") for number in range(held)]
    images = ImageSet(Path("photos"), ("a", "b"), tuple(samples))
    made = TrainSettings.model_validate({"data": "photos", "time_budget": seconds, **settings})
    found = plan(made, images, CPU)
    assert isinstance(found.settings, Settings)
    assert found.end_s < seconds
    return found.settings


def test_more_time_means_larger_pictures_then_more_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [planned(monkeypatch, seconds, 1000) for seconds in (200, 300, 1200, 36_000)]
    assert [one.trainable_stages for one in made] == [None] * 4
    sizes = [one.image_size or 0 for one in made]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 224
    assert made[-1].epochs > made[-2].epochs


def test_little_time_means_fewer_stages_then_the_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [planned(monkeypatch, seconds, 20_000) for seconds in (7200, 400, 150)]
    assert [one.trainable_stages for one in made] == [None, 2, 0]
    assert (made[1].views, made[1].mixup) == (2, 0)
    assert made[2].epochs == 1


def test_a_head_alone_has_no_features_to_match(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = {"teacher": "run", "feature_weight": 0.2}
    made = [planned(monkeypatch, seconds, 20_000, **taught) for seconds in (7200, 150)]
    assert [(one.trainable_stages, one.feature_weight) for one in made] == [(None, 0.2), (0, 0.0)]


def test_small_pictures_are_not_blown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(monkeypatch, 36_000, 1000, native=28).image_size == 112


@pytest.mark.parametrize("said", [{"image_size": 96}, {"trainable_stages": 1}, {"trainable_stages": 0}])
def test_what_is_said_is_kept(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    made = planned(monkeypatch, 1200, 1000, **said)
    assert {name: getattr(made, name) for name in said} == said


def test_too_little_time_is_said_with_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"more than \d+ s was expected.*20 s arrived"):
        planned(monkeypatch, 20, 50_000)


def test_rates_follow_the_time_that_has_passed(quick: dict[str, Any]) -> None:
    assert Position(step=7).time_share is None
    settings = TrainSettings.model_validate({**quick, "data": "photos", "epochs": 10, "head_epochs": 2})
    schedule = TrainingSchedule.of(settings, 40, 5)
    schedule.head_solved = True
    position = Position(step=20, end_s=110.0, stepped_s=10.0)
    found = []
    for position.elapsed_s in (10.0, 60.0, 85.0, 110.0, 500.0):
        assert position.time_share is not None
        found.append(schedule.step_at(position.time_share))
    assert found == [20, 60, 80, 100, 100]


def test_steps_and_decoding_are_timed(quick: dict[str, Any], shared_colours: Path) -> None:
    images = prepare(shared_colours, (5, 3, 2), 0)
    found = budget.measure(TrainSettings.model_validate({**quick, "data": shared_colours}), images, 32, CPU)
    assert min(found.forward, found.whole, found.few, found.decode) > 0
    assert found.at(64) == StepTimings(64, 4 * found.forward, 4 * found.whole, 4 * found.few, found.decode)


def test_a_run_stops_in_the_middle_of_an_epoch_when_its_time_is_over(
    quick: dict[str, Any], shared_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings = StepTimings(32, 0.1, 0.1, 0.1)
    monkeypatch.setattr(budget, "plan", lambda settings, *_: BudgetPlan(settings, 0.5, timings))
    given = {"data": shared_colours, "out": tmp_path / "run", "time_budget": 45, "epochs": 5000, "patience": 5000}
    ended = Trainer().start(TrainSettings.model_validate({**quick, **given}))
    assert ended.epochs < 5000
    assert ended.run.read_events("planned")[0]["end_s"] == 0.5
    assert ended.run.is_finished
    assert ended.run.settings.time_budget == 45


def test_time_for_image_hashes_is_left_at_the_end() -> None:
    cheap, dear = (
        budget._Option(600, StepTimings(112, 0.002, 0.01, 0.001, decode), 900, 100, 0) for decode in (0, 0.1)
    )
    assert cheap.end_s - dear.end_s == pytest.approx(100)
