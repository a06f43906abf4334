"""The public names are the declared ones, and the Python API mirrors the command line."""

import importlib
import inspect
import types
from pathlib import Path

import pytest

import lensmith
from lensmith import api, config
from lensmith.cli import VERBS

GROUPS = {
    "data": {"agreement", "fetch", "check", "split"},
    "cache": {"list_cache", "clear_cache"},
    "bundle": {"describe", "verify", "diff"},
    "feedback": {"FeedbackFolder"},
    "registry": {"Registry"},
    "rollout": {"Rollout"},
    "track": {"track_ui", "tracked_runs", "sync_runs"},
}
"""Verb with verbs of its own → their names in Python."""


def test_every_declared_name_resolves() -> None:
    assert lensmith.__all__ == sorted(lensmith.__all__)
    assert set(api.__all__) < set(lensmith.__all__)
    for name in lensmith.__all__:
        assert callable(getattr(lensmith, name)), name


def test_every_verb_is_a_function_or_class_of_the_package() -> None:
    assert set().union(*(GROUPS.get(verb, {verb}) for verb in VERBS)) <= set(lensmith.__all__)


def test_a_module_is_a_module() -> None:
    importlib.import_module("lensmith.rollout.state")
    assert type(lensmith) is types.ModuleType
    assert type(lensmith.rollout) is types.ModuleType


def test_help_shows_a_verb_with_its_settings() -> None:
    parameters = inspect.signature(lensmith.train).parameters
    assert set(config.TrainSettings.model_fields) <= set(parameters)
    assert repr(parameters["batch_size"].default) == "32"
    doc = inspect.getdoc(lensmith.train) or ""
    assert all(f"    {name}: " in doc for name in parameters)


def test_a_keyword_goes_over_the_environment_even_with_the_value_of_its_default(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_SPLIT_SEED", "7")
    assert "seed 7" in " ".join(lensmith.split(colours, out=tmp_path / "a.csv").notes)
    assert "seed 0" in " ".join(lensmith.split(colours, out=tmp_path / "b.csv", seed=0).notes)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        _ = lensmith.tran
