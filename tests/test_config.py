"""Where a setting comes from, and what is said when it is wrong."""

from pathlib import Path

import pytest

from lensmith.config import ServeSettings, SplitSettings, TrainSettings
from lensmith.errors import SettingsError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_flag_goes_over_environment_over_recipe_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lensmith.yaml").write_text("train: {epochs: 2, lr: 0.2, seed: 2, batch_size: 2}\n")
    monkeypatch.setenv("LENSMITH_TRAIN_EPOCHS", "4")
    monkeypatch.setenv("LENSMITH_TRAIN_LR", "0.4")
    settings = TrainSettings.resolve({"data": "x", "epochs": 5}, {"epochs": 3, "lr": 0.3, "seed": 3})
    assert (settings.epochs, settings.lr, settings.seed, settings.batch_size, settings.patience) == (5, 0.4, 3, 2, 5)


def test_all_mistakes_are_said_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_SERVE_PORT", "lots")
    with pytest.raises(SettingsError) as caught:
        ServeSettings.resolve({"max_bytes": 0, "prot": 1})
    text = str(caught.value)
    assert all(part in text for part in ("port = 'lots'", "max_bytes = 0", "prot is no setting", "bundle is missing"))
    assert "\n" not in text


@pytest.mark.parametrize("written", ["8:1:1", "8,1,1", (8, 1, 1)])
def test_ratios_are_read_in_every_spelling(written: object) -> None:
    assert SplitSettings.resolve({"folder": "x", "ratio": written}).ratio == (8, 1, 1)


@pytest.mark.parametrize("written", ["8:1", "a:b:c", "5:-3:2"])
def test_a_ratio_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(SettingsError, match="ratio"):
        SplitSettings.resolve({"folder": "x", "ratio": written})


@pytest.mark.parametrize("content", ["- a\n- b\n", "train: [1", "\x00"])
def test_a_settings_file_that_is_none_is_refused(content: str) -> None:
    Path("lensmith.yaml").write_text(content)
    with pytest.raises(SettingsError, match=r"lensmith\.yaml"):
        TrainSettings.resolve({"data": "x"})


def test_settings_are_frozen() -> None:
    settings = TrainSettings.resolve({"data": "x"})
    with pytest.raises(ValueError, match="frozen"):
        settings.epochs = 3
