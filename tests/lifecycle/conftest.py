"""Stages for canary releases: a registry, and what serves its champion."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.canary import Stage
from lensmith.bundle.format import Bundle


@pytest.fixture(scope="module")
def stage_of(colour_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stage]]:
    """`stage_of(store)`: a stage with an empty registry, whose services end with the module."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LENSMITH_TRACKING_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        patch.setenv("LENSMITH_SERVE_DEADLINE_MS", "20000")  # of the proxy, which waits as long as the replicas
        yield lambda store: Stage(store, colour_bundle, tmp_path_factory.mktemp("models"), stack)


@pytest.fixture(scope="module")
def store(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in a SQLite file."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path_factory.mktemp('registry') / 'mlflow.db')}"
