"""`lensmith recipe` as a user calls it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.command_line import Run
from lensmith.config import TrainSettings
from lensmith.training.schedule import PRESETS, settings_of

ALL_WRONG = """
epoch: 3
lr: -1
image_size: 64
sizes: 64,96
sync_batch_norm: true
model: resnet_18
teacher: runs/none
albumentations: none.json
"""


pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_shown_of_a_preset_is_a_recipe_of_the_same_settings(run: Run, preset: str) -> None:
    code, printed, _ = run("recipe", "show", preset)
    assert code == 0
    shown = yaml.safe_load(printed)
    assert settings_of({"data": "x"}, shown) == settings_of({"data": "x", "preset": preset})
    assert set(shown) == set(TrainSettings.model_fields) - {"data", "out"}


def test_a_recipe_is_shown_with_the_preset_beneath_it(run: Run) -> None:
    Path("mine.yaml").write_text("preset: high-resolution\nepochs: 6\ndata: photos\n")
    code, printed, _ = run("recipe", "show", "mine.yaml", "--json")
    assert code == 0
    assert printed.count("\n") == 1
    settings = json.loads(printed)["settings"]
    assert (settings["epochs"], settings["sizes"], settings["accumulate"]) == (6, [256, 384, 512], 4)


def test_the_preset_that_was_asked_for_is_shown_whatever_the_environment_names(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_TRAIN_PRESET", "best")
    monkeypatch.setenv("LENSMITH_TRAIN_SEED", "7")
    shown = yaml.safe_load(run("recipe", "show", "fast")[1])
    assert (shown["preset"], shown["epochs"], shown["ema"], shown["seed"]) == ("fast", 5, None, 7)


def test_what_is_neither_preset_nor_file_is_refused_with_the_presets(run: Run) -> None:
    code, _, said = run("recipe", "show", "bset")
    assert code == 2
    assert all(preset in said for preset in PRESETS)


@pytest.mark.parametrize("line", ["recipe validate wrong.yaml", "train . --recipe wrong.yaml"])
def test_all_that_is_wrong_with_a_recipe_is_said_at_once(run: Run, line: str) -> None:
    Path("wrong.yaml").write_text(ALL_WRONG)
    code, printed, said = run(*line.split())
    assert (code, printed, said.count("\n")) == (2, "", 1)
    for part in (
        "epoch is no setting of train, epochs is", "lr = -1", "image_size must be the last of sizes",
        "sync_batch_norm needs batch_norm = train", "'resnet_18' is no backbone, resnet18",
        "teacher = 'runs/none' is not there", "albumentations = 'none.json' is not there",
    ):  # fmt: skip
        assert part in said, part


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model: vit_tiny_patch16_224\nsizes: 32,48\n", "Leave --sizes out"),
        ("model: deit_tiny_distilled_patch16_224\n", "one classification head"),
        ("albumentations: wrong.yaml\n", "A pipeline of Albumentations"),
        ("- a\n", "name: value"),
        ("weights: nowhere.pth\n", "nowhere.pth"),
    ],
)
def test_what_only_building_it_tells_is_found_too(run: Run, content: str, said: str) -> None:
    Path("wrong.yaml").write_text(content)
    code, _, err = run("recipe", "validate", "wrong.yaml")
    assert code == 2
    assert said in err


def test_a_usable_recipe_comes_with_its_phases(run: Run) -> None:
    Path("mine.yaml").write_text(
        "model: test_resnet\nepochs: 6\nhead_epochs: 1\nunfreeze_every: 2\ntrainable_stages: 2\nsizes: [32, 48]\n"
    )
    code, printed, _ = run("recipe", "validate", "mine.yaml", "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(printed)
    assert (found["usable"], found["stages"]) == (True, 5)
    assert [tuple(phase.values()) for phase in found["phases"]] == [
        ("head@32", 1, 1, 0, 32), ("last 1@32", 2, 3, 1, 32), ("last 2@48", 4, 6, 2, 48),
    ]  # fmt: skip
    code, printed, _ = run("recipe", "validate", "mine.yaml")
    assert code == 0
    assert "usable" in printed
    assert "head and the last 2 of 5 stages" in printed
