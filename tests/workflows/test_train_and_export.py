"""Where the settings of a training come from, and what a resumed one is compared with."""

from pathlib import Path
from typing import Any

import pytest

from lensmith.errors import SettingsError
from lensmith.workflows.train_and_export import train

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_a_preset_lies_under_the_recipe_and_over_the_defaults(reaching_trainer: Any) -> None:
    recipe = Path("recipe.yaml")
    recipe.write_text("preset: fast\nepochs: 9\n")
    Path("photos").mkdir()
    settings = reaching_trainer(lambda: train({"data": "photos"}, recipe))
    assert (settings.preset, settings.epochs, settings.augment) == ("fast", 9, "light")
    assert settings.trainable_stages == 0


def test_each_source_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch, reaching_trainer: Any) -> None:
    """Default, lensmith.yaml, preset, recipe, environment, flag: each setting below is said by one and all before."""
    names = ["warmup", "seed", "augment", "epochs", "batch_size", "image_size"]
    Path("lensmith.yaml").write_text(
        "train: {preset: fast, seed: 1, augment: none, epochs: 1, head_epochs: 1, batch_size: 1, image_size: 31}\n"
    )
    recipe = Path("recipe.yaml")
    recipe.write_text("epochs: 33\nbatch_size: 33\nimage_size: 33\n")
    monkeypatch.setenv("LENSMITH_TRAIN_BATCH_SIZE", "44")
    monkeypatch.setenv("LENSMITH_TRAIN_IMAGE_SIZE", "44")
    Path("photos").mkdir()
    settings = reaching_trainer(lambda: train({"data": "photos", "image_size": 55}, recipe))
    assert [getattr(settings, name) for name in names] == [0.05, 1, "light", 33, 44, 55]


def test_the_environment_may_name_the_preset(monkeypatch: pytest.MonkeyPatch, reaching_trainer: Any) -> None:
    monkeypatch.setenv("LENSMITH_TRAIN_PRESET", "fast")
    assert reaching_trainer(lambda: train({"data": "photos"})).epochs == 5


def test_a_resumed_run_is_compared_with_the_given_settings_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, trained: Path, reaching_trainer: Any
) -> None:
    monkeypatch.setenv("LENSMITH_TRAIN_SEED", "7")
    Path("recipe.yaml").write_text("epochs: 8\nlr: 0.5\n")
    assert reaching_trainer(lambda: train({"data": None, "epochs": None}, None, trained)) == {}
    given = {"data": "photos", "loader_workers": 3, "lr": 0.25}
    assert reaching_trainer(lambda: train(given, Path("recipe.yaml"), trained)) == {
        "data": Path("photos"), "loader_workers": 3, "lr": 0.25, "epochs": 8
    }  # fmt: skip


def test_what_is_said_beside_a_run_must_be_usable_too(trained: Path) -> None:
    with pytest.raises(SettingsError, match="lr = -1"):
        train({"data": None, "lr": -1}, resume=trained)
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        train({"data": None}, "nowhere.yaml", trained)


def test_auto_needs_the_whole_command_line() -> None:
    with pytest.raises(SettingsError, match="data"):
        train({"data": None}, resume="auto")
