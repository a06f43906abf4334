"""What did not arrive is found wherever lensmith trains, and is sent."""

import shutil
from pathlib import Path

import pytest

from fixtures.tracked_runs import state_of, track
from lensmith.tracking.sync import sync

PLACES = ("demo/one", "one", "pipelines/flowers/train/0123456789abcdef/one")


def test_runs_of_trainings_of_the_demo_and_of_pipelines_are_sent_once(
    run: Path, runs_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.move(run, tmp_path / "moved")
    for place in PLACES:
        track(Path(shutil.copytree(moved, tmp_path / "runs" / place)), runs_uri)
    monkeypatch.chdir(tmp_path)
    assert [(sent.run, sent.problem) for sent in sync().runs] == [(Path("runs") / place, None) for place in PLACES]
    assert all(state_of(Path("runs") / place).is_complete(Path("runs") / place) for place in PLACES)
    assert sync().runs == ()
