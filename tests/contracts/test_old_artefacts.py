"""Run folders and bundles that an earlier layout of the code wrote still load.

tests/fixtures/runs_before_the_moves.tar.xz holds `colours`, 12 pictures; `finished`, a run with its bundle; `stopped`,
a run killed after the first of three epochs. The network's weights repeat a pattern so that the file stays small.
"""

import json
import shutil
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
    run = Path(shutil.copytree(old / "finished", tmp_path / "run"))
    description = json.loads((run / "run.json").read_text())
    description["data"]["root"] = str(old / "colours")  # not where they lay when the run was made
    (run / "run.json").write_text(json.dumps(description))
    made = export(ExportSettings(run=run, out=tmp_path / "bundle"), quick=True)
    assert lensmith.verify(made.bundle).problem is None
    known = Bundle.load(made.bundle).manifest.image_hashes
    assert known is not None
    # Its first weights are gone since, so nobody knows what they had learnt from.
    assert (known.train, known.val, known.complete) == (6, 3, False)


def test_an_old_bundle_says_that_it_does_not_know_its_training_images(old: Path, tmp_path: Path) -> None:
    """Unless its folder is as it was: then the parts of its training tell."""
    data = Path(shutil.copytree(old / "colours", tmp_path / "colours"))
    found = lensmith.evaluate(old / "finished" / "bundle", data, out=tmp_path / "evaluation")
    assert (found.part, found.headline) == ("test", "held out 3 of 3 images, part test")
    (data / "red" / "000.png").rename(data / "red" / "renamed.png")
    found = lensmith.evaluate(old / "finished" / "bundle", data, out=tmp_path / "evaluation")
    assert found.headline == "12 images, all parts; which of them the model learnt from is not known"


@pytest.mark.slow
def test_an_old_run_resumes_where_it_was_stopped(old: Path) -> None:
    trained = lensmith.train(old / "colours", resume=old / "stopped")
    assert (trained.result.epochs, trained.result.steps) == (3, 6)
    assert trained.run == old / "stopped"
