"""A run folder as what is to be sent."""

from pathlib import Path

from lensmith.tracking.run_reader import DESCRIPTION, EVENTS, TRAINING, has_unsent, is_training, read_events
from lensmith.training.run_dir import lock
from lensmith.training.run_dir import run as folder


def test_the_files_are_those_of_a_run_folder() -> None:
    assert (DESCRIPTION, EVENTS, TRAINING) == (folder.DESCRIPTION, folder.EVENTS, lock.NAME)


def test_events_come_with_the_byte_after_each_and_a_torn_line_waits_or_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / EVENTS
    assert list(read_events(tmp_path, 0)) == []
    first, second = b'{"event": "start"}\n', b'{"event": "epoch", "note": "\xc3\xa9"}\n'
    file.write_bytes(first + second + b'{"event": "en')
    found = list(read_events(tmp_path, 0))
    assert [(event["event"], end) for event, end in found] == [
        ("start", len(first)),
        ("epoch", len(first + second)),
    ]
    assert [event["event"] for event, _ in read_events(tmp_path, len(first))] == ["epoch"]
    assert list(read_events(tmp_path, len(first + second))) == []
    with file.open("ab") as stream:
        stream.write(b'\nnot JSON\n[1]\n{"event": "end"}\n')
    assert [event["event"] for event, _ in read_events(tmp_path, len(first))] == ["epoch", "end"]
    assert list(read_events(tmp_path, len(first)))[-1][1] == file.stat().st_size


def test_before_its_start_nothing_of_a_run_waits(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"event": "planned"}\n')
    assert not has_unsent(tmp_path, 0, begun=False)
    assert has_unsent(tmp_path, 0, begun=True)
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"event": "start"}\n')
    assert has_unsent(tmp_path, 0, begun=False)


def test_a_run_is_trained_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    with lock.locked_run(tmp_path):
        assert is_training(tmp_path)
    assert not is_training(tmp_path)
