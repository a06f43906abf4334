"""tracking.json: whole, or not at all."""

from pathlib import Path

import pytest

from lensmith.tracking.state import NAME, TrackingState, sending_lock


def test_it_reads_what_it_wrote(tmp_path: Path) -> None:
    state = TrackingState("sqlite:///x.db", "key", 1.5).write(tmp_path, offset=7, run_id="r")
    assert TrackingState.read(tmp_path) == state
    assert (state.offset, state.run_id, state.uri) == (7, "r", "sqlite:///x.db")
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"uri": "x"}', '{"odd": 1}'])
def test_what_is_not_whole_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert TrackingState.read(tmp_path) is None
    assert TrackingState.read(tmp_path / "nowhere") is None


def test_a_folder_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    state = TrackingState("sqlite:///x.db", "key", 1.5)
    with pytest.raises(FileNotFoundError):
        state.write(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_one_process_sends_a_run_at_a_time(tmp_path: Path) -> None:
    with sending_lock(tmp_path, 0) as first, sending_lock(tmp_path, 0) as second:
        assert (first, second) == (True, False)
    with sending_lock(tmp_path, 0) as third:
        assert third
