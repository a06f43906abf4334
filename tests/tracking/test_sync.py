"""What did not arrive is found wherever lensmith trains, and is sent."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lensmith.tracking.state import TrackingState
from lensmith.tracking.sync import sync


@pytest.mark.parametrize("place", ["one", "demo/one", "pipelines/flowers/train/0123456789abcdef/one"])
def test_runs_of_trainings_of_the_demo_and_of_pipelines_are_sent(
    place: str, run: Path, begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.move(run, tmp_path / "moved"))
    target = tmp_path / "runs" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, target)
    begin(target)
    monkeypatch.chdir(tmp_path)
    (sent,) = sync().runs
    assert (sent.run, sent.problem) == (Path("runs") / place, None)
    state = TrackingState.read(target)
    assert state is not None
    assert state.is_complete(target)
    assert sync().runs == ()
