"""Options made from settings: panels, defaults, and flags that were renamed."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.command_line import Run
from lensmith import api, config
from lensmith.cli.options import kind_of

CLASSES = [each for _, each in inspect.getmembers(config, inspect.isclass) if issubclass(each, config.Settings)]
RENAMED = [(each, old, new) for each in CLASSES for old, new in each.renamed.items()]


def test_the_options_most_people_need_fit_on_a_screen_and_the_others_stand_in_their_panels(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("train", "-h")[1]
    first = shown[: shown.index("\nData:")]
    assert first.count("\n") <= 40
    for flag in ("--model TEXT", "--epochs INT", "--out PATH", "--resume RUN|auto", "[default: 32]", "-h, --help"):
        assert flag in first
    titles = [line[:-1] for line in shown.split("\n") if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Arguments", "Options", *config.TrainSettings.panels]
    regularization = shown[shown.index("\nRegularization:") : shown.index("\nDistillation:")]
    assert "--label-smoothing FLOAT" in regularization


@pytest.mark.parametrize("settings", CLASSES, ids=lambda each: each.verb if each is not config.Settings else "base")
def test_a_panel_names_settings_each_of_them_once(settings: type[config.Settings]) -> None:
    named = " ".join(settings.panels.values()).split()
    assert len(named) == len(set(named))
    assert set(named) <= settings.model_fields.keys() - set(settings.positional)


def test_one_flag_means_one_thing() -> None:
    kinds: dict[str, set[str]] = {}
    for each in CLASSES:
        for name, field in (each.model_fields if each is not config.Settings else {}).items():
            if name not in each.positional:
                kinds.setdefault(name, set()).add(str(kind_of(field)))
    del kinds["format"]  # one meaning, the form of a file; a table of predictions has others than annotations
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


@pytest.mark.parametrize(("settings", "old", "new"), RENAMED, ids=[f"{each.verb}-{old}" for each, old, _ in RENAMED])
def test_the_old_name_of_a_setting_is_still_read(
    settings: type[config.Settings], old: str, new: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"workers": "3", "warmup": "7", "images": "pictures", "target": "github", "name": "flowers"}[old]
    monkeypatch.chdir(tmp_path)

    def layered() -> Any:
        return settings.layers({})[new]

    (tmp_path / "lensmith.yaml").write_text(yaml.safe_dump({settings.verb: {old: "file"}}))
    assert layered() == "file"
    monkeypatch.setenv(f"LENSMITH_{settings.verb}_{old}".upper(), "environment")
    assert layered() == "environment"
    monkeypatch.setenv(f"LENSMITH_{settings.verb}_{new}".upper(), "new")
    assert layered() == "new"

    given: dict[str, Any] = {}
    monkeypatch.setattr(api, settings.verb, lambda *arguments, **settings: given.update(settings) or 1 / 0)
    _, _, err = run(settings.verb, "schedule" if settings.verb == "deploy" else "x", f"--{old}", value)
    assert str(given[new]) == value
    assert f"--{new.replace('_', '-')}" in err.split("\n")[0]


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "bundle", "--keep", ""), ("serve", "bundle", "--log-file", " "), ("serve", ""),
        ("train", ""), ("train", "images", "--out", ""), ("predict", "bundle", ""),
        ("predict", "bundle", "x", "--out", ""),
        ("bundle", "show", ""), ("pipeline", "run", ""), ("data", "check", "\u200b"), ("recipe", "validate", ""),
    ],
)  # fmt: skip
def test_an_empty_path_is_not_the_current_folder(words: tuple[str, ...], run: Run) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "empty" in err
