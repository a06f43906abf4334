"""What happens when: stages, steps and rates are pure functions of the settings."""

from pathlib import Path
from typing import Any, get_args

import pytest

from lensmith.config import TrainSettings
from lensmith.train.recipe import PRESETS, Plan


def plan(images: int = 10, **settings: Any) -> Plan:
    defaults = {"data": Path("photos"), "epochs": 5, "head_epochs": 2, "batch_size": 4, "warmup": 0.2}
    return Plan.of(TrainSettings.model_validate({**defaults, **settings}), images)


def rates(made: Plan, *, backbone: bool) -> list[float]:
    return [made.rate(step, backbone=backbone) for step in range(made.total_steps)]


def test_a_plan_counts_the_last_smaller_batch_too() -> None:
    made = plan(images=10, batch_size=4, epochs=5)
    assert (made.steps_per_epoch, made.total_steps) == (3, 15)


@pytest.mark.parametrize(
    ("head_epochs", "stages"),
    [
        (2, [("head", 0, 2), ("all", 2, 5)]),
        (0, [("all", 0, 5)]),
        (5, [("head", 0, 5)]),
        (9, [("head", 0, 5)]),
    ],
)
def test_stages_cover_every_epoch_once(head_epochs: int, stages: list[tuple[str, int, int]]) -> None:
    made = plan(head_epochs=head_epochs)
    assert [(stage.name, stage.first_epoch, stage.end_epoch) for stage in made.stages] == stages
    assert [made.stage(epoch).frozen for epoch in range(5)] == [epoch < head_epochs for epoch in range(5)]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    made = plan(images=100, epochs=4, warmup=0.2)  # 100 steps, 20 of them warm up
    head = rates(made, backbone=False)
    peak = head.index(max(head))
    assert abs(peak - made.warmup_steps) <= 1
    assert head[: peak + 1] == sorted(head[: peak + 1])
    assert head[peak:] == sorted(head[peak:], reverse=True)
    assert 0 < head[0] < 0.06
    assert 0.85 < head[peak] <= 1
    assert 0 < head[-1] < 0.001


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert plan(warmup=0).rate(0, backbone=False) == 1.0


def test_the_backbone_warms_up_when_it_is_unfrozen() -> None:
    made = plan(images=100, epochs=4, head_epochs=2, warmup=0.2)
    thawed = 2 * made.steps_per_epoch
    backbone, head = rates(made, backbone=True), rates(made, backbone=False)
    assert set(backbone[:thawed]) == {0.0}
    shares = [backbone[step] / head[step] for step in range(thawed, thawed + made.warmup_steps)]
    assert 0 < shares[0] < 0.1
    assert shares == sorted(shares)
    assert backbone[thawed + made.warmup_steps :] == head[thawed + made.warmup_steps :]


@pytest.mark.parametrize("head_epochs", [0, 5])
def test_with_one_stage_backbone_and_head_go_alike(head_epochs: int) -> None:
    made = plan(head_epochs=head_epochs)
    assert rates(made, backbone=True) == rates(made, backbone=False)


def test_max_steps_ends_the_cosine_there() -> None:
    made = plan(images=100, epochs=4, max_steps=30)
    assert made.total_steps == 30
    assert made.rate(29, backbone=False) < 0.01
    assert plan(max_steps=10**6).total_steps == 15


def test_presets_are_the_choices_of_the_setting_and_keep_to_real_settings() -> None:
    assert set(PRESETS) == set(get_args(TrainSettings.model_fields["preset"].annotation))
    for name, changes in PRESETS.items():
        settings = TrainSettings.model_validate({"data": "photos", "preset": name, **changes})
        assert all(getattr(settings, key) == value for key, value in changes.items())


def test_the_fast_preset_leaves_the_backbone_frozen() -> None:
    assert [stage.name for stage in plan(**PRESETS["fast"]).stages] == ["head"]
