"""The public names are the declared ones, and the Python API mirrors the command line."""

import importlib
import inspect

import pytest

import lensmith
from lensmith import api, config
from lensmith.cli import VERBS
from lensmith.errors import LensmithError


def test_every_declared_name_resolves() -> None:
    assert lensmith.__all__ == sorted(lensmith.__all__)
    for name in lensmith.__all__:
        assert callable(getattr(lensmith, name)), name


def test_every_verb_is_a_function_of_the_package() -> None:
    spoken = (set(VERBS) - {"data", "cache", "bundle", "track"}) | {"fetch", "check", "split", "cached", "clear_cache"}
    spoken |= {"describe", "verify", "diff"}
    spoken = (spoken - {"feedback"}) | {"kept_uploads", "export_feedback", "clear_feedback"}
    spoken |= {"track_ui", "tracked", "sync"}
    spoken = (spoken - {"registry"}) | {"push", "registered", "registered_version", "set_alias", "pull", "rollback"}
    assert spoken <= set(lensmith.__all__)


def test_a_room_stays_callable_after_its_parts_are_imported() -> None:
    importlib.import_module("lensmith.training.schedule")
    with pytest.raises(LensmithError, match="Nothing is there"):
        lensmith.train("no/such/folder")
    assert lensmith.training.schedule.PRESETS


def test_every_settings_class_has_a_verb() -> None:
    classes = [c for _, c in inspect.getmembers(config, inspect.isclass) if issubclass(c, config.Settings)]
    # Where MLflow is concerns several verbs, and is none.
    verbs = {c.verb for c in classes if c not in (config.Settings, config.TrackingSettings)}
    assert verbs <= {name for name, _ in inspect.getmembers(api, inspect.isfunction)}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        _ = lensmith.tran
