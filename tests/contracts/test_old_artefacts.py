"""Run folders and bundles that an earlier layout of the code wrote still load.

tests/fixtures/runs_before_the_moves.tar.xz holds `colours`, 12 pictures; `finished`, a run with its bundle; `stopped`,
a run killed after the first of three epochs. The network's weights repeat a pattern so that the file stays small.
"""

import tarfile
from pathlib import Path

import pytest

import lensmith
from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings
from lensmith.exporting.export import export

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "runs_before_the_moves.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as file:
        file.extractall(folder, filter="data")
    return folder


def test_an_old_bundle_answers_and_verifies(old: Path) -> None:
    bundle = old / "finished" / "bundle"
    assert Bundle.load(bundle).labels == ("blue", "green", "red")
    assert lensmith.verify(bundle).problem is None
    (answer,) = lensmith.load(bundle).predict([old / "colours" / "red" / "000.png"])
    assert answer.label in ("blue", "green", "red")


@pytest.mark.slow
def test_a_bundle_can_be_made_of_an_old_run(old: Path, tmp_path: Path) -> None:
    made = export(ExportSettings(run=old / "finished", out=tmp_path / "bundle"), quick=True)
    assert lensmith.verify(made.bundle).problem is None


@pytest.mark.slow
def test_an_old_run_resumes_where_it_was_stopped(old: Path) -> None:
    trained = lensmith.train(old / "colours", resume=old / "stopped")
    assert (trained.result.epochs, trained.result.steps) == (3, 6)
    assert trained.run == old / "stopped"
