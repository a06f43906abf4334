"""A real store of runs in SQLite, and run folders to send."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle.format import Bundle
from lensmith.registry import client as store
from lensmith.tracking.state import TrackingState


@pytest.fixture(scope="session")
def runs_uri(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tracking URI of a SQLite database with MLflow's tables."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path_factory.mktemp('store') / 'mlflow.db')}"


@pytest.fixture
def run(trained: Path, colour_bundle: Bundle, tmp_path: Path) -> Path:
    """A finished and exported run folder, of which nothing has been sent."""
    folder = tmp_path / "runs" / "one"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("*.pt", "bundle"))
    shutil.copytree(colour_bundle.path, folder / "bundle")
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "exported", "bundle": "bundle", "version": "1", "time": time.time()}) + "\n")
    return folder


@pytest.fixture
def begin(runs_uri: str) -> Callable[..., TrackingState]:
    """`begin(run)`: the run is to be tracked there."""

    def note(run: Path, uri: str = runs_uri) -> TrackingState:
        return TrackingState.new(uri, run).write(run)

    return note


@pytest.fixture
def histories() -> Callable[[str, str], dict[str, list[tuple[int, float]]]]:
    """`histories(uri, run_id)`: every value of every metric as (step, value), in the order of steps."""

    def read(uri: str, run_id: str) -> dict[str, list[tuple[int, float]]]:
        client = store.client(uri)
        names = client.get_run(run_id).data.metrics
        return {
            name: sorted((one.step, one.value) for one in client.get_metric_history(run_id, name)) for name in names
        }

    return read


@pytest.fixture
def files() -> Callable[[str, str], set[str]]:
    """`files(uri, run_id)`: the paths of all artifacts."""

    def read(uri: str, run_id: str) -> set[str]:
        client, found, folders = store.client(uri), set[str](), [""]
        while folders:
            for one in client.list_artifacts(run_id, folders.pop() or None):
                folders += [one.path] if one.is_dir else []
                found |= set() if one.is_dir else {one.path}
        return found

    return read


@pytest.fixture
def log_event() -> Callable[..., None]:
    """`log_event(run, event, **fields)`: append an event."""

    def append(run: Path, event: str, **fields: Any) -> None:
        with (run / "events.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")

    return append
