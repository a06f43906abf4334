"""A real store of runs in SQLite, and a run folder to send."""

import shutil
from pathlib import Path

import pytest

from fixtures.tracked_runs import log_event
from lensmith.bundle.format import Bundle


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
    log_event(folder, "exported", bundle="bundle", version="1")
    return folder
