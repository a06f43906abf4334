"""The uploader process: retries while the server is unreachable, gives up after the end, sends incomplete siblings."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.tracked_runs import state_of, track
from lensmith.tracking import uploader
from lensmith.tracking.run_reader import has_unsent
from lensmith.tracking.state import TrackingState, sending_lock
from lensmith.training.run_dir import lock


@pytest.fixture
def over() -> threading.Event:
    """The training is over."""
    event = threading.Event()
    event.set()
    return event


def test_with_the_server_away_it_gives_up_after_the_end_and_says_why(
    run: Path, over: threading.Event, free_port: Callable[[], int]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    track(run, url)
    assert not uploader.main(run, url, over, over)
    state = state_of(run)
    assert state.problem is not None
    assert "did not" in state.problem
    assert (state.run_id, state.offset) == (None, 0)
    assert not state.is_complete(run)


def test_it_sends_what_other_runs_have_left_at_the_same_place_and_touches_no_others(
    run: Path, over: threading.Event, runs_uri: str
) -> None:
    track(run, runs_uri)
    copies = {name: Path(shutil.copytree(run, run.parent / name)) for name in ("left", "trained", "elsewhere", "never")}
    for name in ("left", "trained"):
        track(copies[name], runs_uri)
    track(copies["elsewhere"], "sqlite:////nowhere/mlflow.db")
    (copies["never"] / "tracking.json").unlink()
    with lock.locked_run(copies["trained"]):
        assert uploader.main(run, runs_uri, over, over)
    states = {name: TrackingState.read(folder) for name, folder in copies.items()}
    assert {name: state and state.is_complete(copies[name]) for name, state in states.items()} == {
        "left": True, "trained": False, "elsewhere": False, "never": None,
    }  # fmt: skip


def test_a_run_whose_folder_is_removed_ends_it_without_making_anything(
    run: Path, over: threading.Event, runs_uri: str
) -> None:
    track(run, runs_uri)
    shutil.rmtree(run)
    assert not uploader.main(run, runs_uri, over, over)
    assert not run.exists()


def test_it_waits_for_the_one_before_it_and_leaves_the_run_to_that_one_if_it_stays(
    run: Path, over: threading.Event, runs_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "EVERY_S", 0.01)
    track(run, runs_uri)
    with sending_lock(run, 0):
        assert not uploader.main(run, runs_uri, over, over)
    assert has_unsent(run, 0, begun=True)
    assert uploader.main(run, runs_uri, over, over)
