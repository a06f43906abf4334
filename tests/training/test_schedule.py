"""What happens when: phases, steps and rates are pure functions of the settings."""

from pathlib import Path
from typing import Any, get_args

import pytest

from lensmith.config import TrainSettings
from lensmith.training.schedule import PRESETS, TrainingSchedule

STAGES = 4


def plan(images: int = 10, **settings: Any) -> TrainingSchedule:
    defaults = {"data": Path("photos"), "epochs": 5, "head_epochs": 2, "batch_size": 4, "warmup": 0.2}
    return TrainingSchedule.of(TrainSettings.model_validate({**defaults, **settings}), images, STAGES)


def phases(**settings: Any) -> list[tuple[str, int, int]]:
    return [(phase.name, phase.first_epoch, phase.end_epoch) for phase in plan(**settings).phases]


def rates(made: TrainingSchedule, stage: int = 0) -> list[float]:
    return [made.rate(step, stage=stage) for step in range(made.total_steps)]


@pytest.mark.parametrize("batches", [{"batch_size": 4}, {"batch_size": 2, "accumulate": 2}])
def test_a_step_takes_all_its_batches_and_the_last_may_be_smaller(batches: dict[str, int]) -> None:
    made = plan(images=10, epochs=5, **batches)
    assert (made.steps_per_epoch, made.total_steps) == (3, 15)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"head_epochs": 2}, [("head", 0, 2), ("all", 2, 5)]),
        ({"head_epochs": 0}, [("all", 0, 5)]),
        ({"head_epochs": 9}, [("head", 0, 5)]),
        ({"trainable_stages": 0}, [("head", 0, 5)]),
        ({"trainable_stages": 3}, [("head", 0, 2), ("last 3", 2, 5)]),
        ({"trainable_stages": 9}, [("head", 0, 2), ("all", 2, 5)]),
        ({"unfreeze_every": 1, "epochs": 7}, [
            ("head", 0, 2), ("last 1", 2, 3), ("last 2", 3, 4), ("last 3", 4, 5), ("all", 5, 7),
        ]),
        ({"unfreeze_every": 2, "head_epochs": 1, "trainable_stages": 2, "epochs": 8}, [
            ("head", 0, 1), ("last 1", 1, 3), ("last 2", 3, 8),
        ]),
        ({"unfreeze_every": 3}, [("head", 0, 2), ("last 1", 2, 5)]),
        ({"sizes": "64,96", "head_epochs": 0}, [("all@64", 0, 3), ("all@96", 3, 5)]),
        ({"sizes": "64,96", "trainable_stages": 2, "head_epochs": 1}, [
            ("head@64", 0, 1), ("last 2@64", 1, 3), ("last 2@96", 3, 5),
        ]),
    ],
)  # fmt: skip
def test_phases_change_with_what_learns_and_with_the_image_size(
    settings: dict[str, Any], expected: list[tuple[str, int, int]]
) -> None:
    assert phases(**settings) == expected


@pytest.mark.parametrize("epochs", [3, 4, 5, 7, 10, 20])
@pytest.mark.parametrize("changes", [{}, {"sizes": "32,48,64"}, {"unfreeze_every": 1}, {"head_epochs": 0}])
def test_phases_cover_every_epoch_once(epochs: int, changes: dict[str, Any]) -> None:
    made = plan(epochs=epochs, **changes)
    covered = [epoch for phase in made.phases for epoch in range(phase.first_epoch, phase.end_epoch)]
    assert covered == list(range(epochs))
    assert all(phase.first_epoch <= epoch < phase.end_epoch for epoch in covered for phase in [made.phase(epoch)])


def test_sizes_share_the_epochs_equally_and_the_last_is_the_model_s() -> None:
    for epochs in (3, 10, 20):
        made = plan(epochs=epochs, sizes="32,48,64")
        found = [made.phase(epoch).image_size for epoch in range(epochs)]
        assert sorted(found) == found
        assert found[-1] == 64
        shares = [found.count(size) for size in (32, 48, 64)]
        assert max(shares) - min(shares) <= 1
    assert plan().phases[0].image_size is None


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    made = plan(images=100, epochs=4, warmup=0.2)  # 100 steps, 20 of them warm up
    head = rates(made)
    peak = head.index(max(head))
    assert abs(peak - made.warmup_steps) <= 1
    assert head[: peak + 1] == sorted(head[: peak + 1])
    assert head[peak:] == sorted(head[peak:], reverse=True)
    assert 0 < head[0] < 0.06
    assert 0.85 < head[peak] <= 1
    assert 0 < head[-1] < 0.001


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_without_the_cosine_the_rate_stays_at_its_peak(schedule: str) -> None:
    made = plan(images=100, epochs=4, warmup=0.2, schedule=schedule)
    assert set(rates(made)[made.warmup_steps :]) == {1.0}
    assert rates(made)[: made.warmup_steps] == sorted(set(rates(made)[: made.warmup_steps]))


def test_every_stage_warms_up_when_it_is_unfrozen() -> None:
    made = plan(images=400, epochs=6, head_epochs=1, unfreeze_every=1, warmup=0.05)
    for stage in range(1, STAGES + 1):
        thawed = stage * made.steps_per_epoch
        own, head = rates(made, stage), rates(made)
        assert set(own[:thawed]) == {0.0}
        shares = [own[step] / head[step] for step in range(thawed, thawed + made.warmup_steps)]
        assert 0 < shares[0] < 0.1
        assert shares == sorted(shares)
        assert own[thawed + made.warmup_steps :] == head[thawed + made.warmup_steps :]


def test_rates_follow_what_learns_and_not_the_image_size() -> None:
    assert plan(warmup=0).rate(0, stage=0) == 1.0
    assert rates(plan(sizes="32,48"), 3) == rates(plan(), 3)
    without_head = plan(head_epochs=0)
    assert rates(without_head, STAGES) == rates(without_head)


def test_what_never_learns_has_no_rate() -> None:
    made = plan(trainable_stages=2)
    assert set(rates(made, 3)) == {0.0}
    assert max(rates(made, 2)) > 0
    assert set(rates(plan(trainable_stages=0), 1)) == {0.0}


def test_max_steps_ends_the_cosine_there() -> None:
    made = plan(images=100, epochs=4, max_steps=30)
    assert made.total_steps == 30
    assert made.rate(29, stage=0) < 0.01
    assert plan(max_steps=10**6).total_steps == 15


def test_presets_are_the_choices_of_the_setting_and_keep_to_real_settings() -> None:
    assert set(PRESETS) == set(get_args(TrainSettings.model_fields["preset"].annotation))
    for name, changes in PRESETS.items():
        settings = TrainSettings.model_validate({"data": "photos", "preset": name, **changes})
        assert all(getattr(settings, key) == value for key, value in changes.items())
        plain = TrainSettings.model_validate({"data": "photos"})
        assert all(getattr(plain, key) != value for key, value in changes.items()), "a preset names no default"


@pytest.mark.parametrize("preset", ["fast", "finetune-head"])
def test_presets_of_the_head_leave_the_backbone_frozen(preset: str) -> None:
    assert phases(**{"head_epochs": 2, **PRESETS[preset]})[0][0] == "head"
    assert len(phases(**PRESETS[preset])) == 1


def test_the_high_resolution_preset_grows_from_256_to_512_pixels() -> None:
    made = plan(images=64, **PRESETS["high-resolution"])
    assert [phase.name for phase in made.phases] == ["head@256", "all@256", "all@384", "all@512"]
    assert made.steps_per_epoch == 1


def test_the_page_on_recipes_shows_what_each_preset_changes() -> None:
    lines = (Path(__file__).parents[2] / "docs/recipes.md").read_text().splitlines()
    head, *rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][:25]
    table = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows if row[0] in TrainSettings.model_fields}
    assert set(head[1:]) == set(PRESETS)
    assert set(table) == {name for changes in PRESETS.values() for name in changes}
    for name, cells in table.items():
        default = TrainSettings.model_fields[name].default
        for preset, cell in cells.items():
            value = PRESETS[preset].get(name, default if preset == "balanced" else None)
            shown = "" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert cell == shown, (name, preset)
