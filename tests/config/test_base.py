"""Sources of a setting's value, and the reports of mistakes."""

import inspect
import re
from pathlib import Path

import pytest

from lensmith.config import ServeSettings, SplitSettings, TrainSettings
from lensmith.config.base import read_yaml
from lensmith.errors import SettingsError

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_flag_goes_over_environment_over_recipe_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lensmith.yaml").write_text("train: {epochs: 2, lr: 0.2, seed: 2, batch_size: 2}\n")
    monkeypatch.setenv("LENSMITH_TRAIN_EPOCHS", "4")
    monkeypatch.setenv("LENSMITH_TRAIN_LR", "0.4")
    settings = TrainSettings.resolve({"data": "x", "epochs": 5}, {"epochs": 3, "lr": 0.3, "seed": 3})
    assert (settings.epochs, settings.lr, settings.seed, settings.batch_size, settings.patience) == (5, 0.4, 3, 2, 5)


def test_all_mistakes_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_SERVE_PORT", "lots")
    with pytest.raises(SettingsError) as caught:
        ServeSettings.resolve({"max_bytes": 0, "prot": 1})
    text = str(caught.value)
    assert all(part in text for part in ("port = 'lots'", "max_bytes = 0", "prot is no setting", "bundle is missing"))
    assert "\n" not in text


CONTRADICTIONS = [
    ({"sizes": "64,96", "image_size": 64}, "sizes image_size"),
    ({"sizes": "64,96", "epochs": 1}, "sizes epochs"),
    ({"unfreeze_every": 1, "trainable_stages": 0}, "unfreeze_every trainable_stages"),
    ({"plateau_factor": 0.5}, "plateau_factor schedule"),
    ({"plateau_patience": 3, "schedule": "constant"}, "plateau_patience schedule"),
    ({"sync_batch_norm": True}, "sync_batch_norm batch_norm"),
    ({"sampling": "balanced", "class_weights": "balanced"}, "sampling class_weights"),
    ({"albumentations": "x.json", "augment": "trivial"}, "albumentations augment"),
    ({"albumentations": "x.json", "augment": "none"}, "albumentations augment"),
    ({"transforms": "x.yaml", "augment": "none"}, "transforms augment"),
    ({"albumentations": "x.json", "transforms": "x.yaml", "augment": "light"}, "albumentations transforms"),
    ({"teacher_weight": 0.9}, "teacher_weight teacher"),
    ({"teacher_temperature": 4.0}, "teacher_temperature teacher"),
    ({"feature_weight": 0.2}, "feature_weight teacher"),
    ({"feature_weight": 0.6, "teacher": "runs/x"}, "feature_weight teacher_weight"),
    ({"feature_weight": 0.2, "teacher": "runs/x", "trainable_stages": 0}, "feature_weight trainable_stages"),
    ({"time_budget": "5m", "sizes": "64,96"}, "time_budget sizes"),
    ({"time_budget": "5m", "processes": 2}, "time_budget processes"),
    ({"min_chunk": 9, "batch_size": 2, "accumulate": 4}, "min_chunk batch_size accumulate"),
]


@pytest.mark.parametrize(("given", "names"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], names: str) -> None:
    with pytest.raises(SettingsError) as refused:
        TrainSettings.resolve({"data": "x", **given})
    assert set(names.split()) <= set(re.findall(r"\w+", refused.value.arrived))


def test_every_contradiction_is_tried_above() -> None:
    for rule in TrainSettings.contradictions.values():
        settings = inspect.signature(rule).parameters.keys()
        assert any(set(names.split()) <= settings for _, names in CONTRADICTIONS), settings


def test_what_fits_together_is_no_contradiction() -> None:
    settings = TrainSettings.resolve(
        {
            "data": "x", "sizes": "64,96", "image_size": 96, "epochs": 2, "unfreeze_every": 1, "schedule": "plateau",
            "plateau_factor": 0.5, "sync_batch_norm": True, "batch_norm": "train", "sampling": "balanced",
            "albumentations": "x.json", "augment": "light", "teacher": "runs/x", "teacher_weight": 0.9, "min_chunk": 8,
            "batch_size": 4, "accumulate": 2, "feature_weight": 0.1,
        }
    )  # fmt: skip
    assert (settings.model_size, settings.step_images) == (96, 8)


def test_contradictions_come_with_all_other_mistakes_but_not_because_of_them() -> None:
    with pytest.raises(SettingsError) as caught:
        TrainSettings.resolve(
            {"lr": -1, "preset": "bset", "teacher": 3, "teacher_weight": 0.9, "sync_batch_norm": True}
        )
    text = str(caught.value)
    for part in ("data is missing", "lr = -1", "preset = 'bset'", "teacher = 3", "sync_batch_norm needs"):
        assert part in text
    assert "need a teacher" not in text


@pytest.mark.parametrize(
    ("written", "sizes"), [(" 64, 96", (64, 96)), ([64, 96], (64, 96)), (96, (96,)), ("96", (96,)), ([], None)]
)
def test_sizes_are_read_in_every_spelling(written: object, sizes: object) -> None:
    assert TrainSettings.resolve({"data": "x", "sizes": written}).sizes == sizes


def test_the_model_s_size_is_the_last_one() -> None:
    assert TrainSettings.resolve({"data": "x", "sizes": "64,96"}).model_size == 96
    assert TrainSettings.resolve({"data": "x", "image_size": 64}).model_size == 64
    assert TrainSettings.resolve({"data": "x"}).model_size is None


@pytest.mark.parametrize("written", ["", "64,", "64;96", "8,64", "a"])
def test_sizes_that_are_none_are_refused(written: object) -> None:
    with pytest.raises(SettingsError, match="sizes"):
        TrainSettings.resolve({"data": "x", "sizes": written})


@pytest.mark.parametrize("written", ["8:1:1", "8,1,1", (8, 1, 1)])
def test_ratios_are_read_in_every_spelling(written: object) -> None:
    assert SplitSettings.resolve({"folder": "x", "ratio": written}).ratio == (8, 1, 1)


@pytest.mark.parametrize(
    ("written", "should"),
    [("8:1", "three numbers"), ("5:3:2:1", "three numbers"), ("a:b:c", "a valid number"), ("5:-3:2", "greater than")],
)
def test_a_ratio_that_is_none_is_refused(written: str, should: str) -> None:
    with pytest.raises(SettingsError, match=rf"ratio = \S+ .*{should}"):
        SplitSettings.resolve({"folder": "x", "ratio": written})


def test_a_ratio_in_a_file_is_no_time_of_day(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("split: 5:3:2\nlr: 3e-3\nepochs: 0o17\nseed: 1_000\n")
    read = read_yaml(tmp_path / "recipe.yaml")
    assert TrainSettings.resolve({"data": "photos"}, read).split == (5, 3, 2)
    assert TrainSettings.resolve({"data": "photos"}, read).lr == 0.003


@pytest.mark.parametrize("content", ["- a\n- b\n", "train: [1", "\x00"])
def test_a_settings_file_that_is_none_is_refused(content: str) -> None:
    Path("lensmith.yaml").write_text(content)
    with pytest.raises(SettingsError, match=r"lensmith\.yaml"):
        TrainSettings.resolve({"data": "x"})


def test_settings_are_frozen_and_a_seed_is_one_that_generators_take() -> None:
    settings = TrainSettings.resolve({"data": "x", "seed": 2**63 - 1})
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3
    with pytest.raises(SettingsError, match="seed"):
        TrainSettings.resolve({"data": "x", "seed": 2**63})
