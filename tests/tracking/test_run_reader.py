"""A run folder as what is to be sent."""

from pathlib import Path

from lensmith.tracking.run_reader import DESCRIPTION, EVENTS, TRAINING, RunReader
from lensmith.training.run_dir import lock
from lensmith.training.run_dir import run as folder


def test_the_files_are_those_of_a_run_folder() -> None:
    assert (DESCRIPTION, EVENTS, TRAINING) == (folder.DESCRIPTION, folder.EVENTS, lock.NAME)


def test_events_come_with_the_byte_after_each_and_a_torn_line_waits_or_is_passed_over(tmp_path: Path) -> None:
    file, reader = tmp_path / EVENTS, RunReader(tmp_path)
    assert list(reader.events(0)) == []
    first, second = b'{"event": "start"}\n', b'{"event": "epoch", "note": "\xc3\xa9"}\n'
    file.write_bytes(first + second + b'{"event": "en')
    found = list(reader.events(0))
    assert [(event["event"], end) for event, end in found] == [
        ("start", len(first)),
        ("epoch", len(first + second)),
    ]
    assert [event["event"] for event, _ in reader.events(len(first))] == ["epoch"]
    assert list(reader.events(len(first + second))) == []
    with file.open("ab") as stream:
        stream.write(b'\nnot JSON\n[1]\n{"event": "end"}\n')
    assert [event["event"] for event, _ in reader.events(len(first))] == ["epoch", "end"]
    assert list(reader.events(len(first)))[-1][1] == file.stat().st_size


def test_before_its_start_nothing_of_a_run_waits(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"event": "planned"}\n')
    assert not RunReader(tmp_path).has_unsent(0, begun=False)
    assert RunReader(tmp_path).has_unsent(0, begun=True)
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"event": "start"}\n')
    assert RunReader(tmp_path).has_unsent(0, begun=False)


def test_a_run_is_trained_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    with lock.locked_run(tmp_path):
        assert RunReader(tmp_path).is_training()
    assert not RunReader(tmp_path).is_training()
