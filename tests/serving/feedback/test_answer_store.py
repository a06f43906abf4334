"""Recent answers, shared by all processes of a service."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.faults import eventually
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.feedback import answer_store
from lensmith.serving.feedback.answer_store import AnswerStore, GivenAnswer

LABELS = ("blue", "green", "red")
MODEL = ModelVersion("colours", "1")

Opened = Callable[..., AnswerStore]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """`opened(most, shared)`: an answer store that has begun, closed at the end."""
    made: list[AnswerStore] = []

    def make(most: int = 100, shared: Path | None = None) -> AnswerStore:
        made.append(AnswerStore(most, shared))
        made[-1].begin()
        return made[-1]

    yield make
    for each in made:
        each.close()


def record(store: AnswerStore, request_id: str, class_id: int = 2, version: str = "1", stored: bool = False) -> None:
    model = ModelVersion("colours", version)
    store.record(GivenAnswer(request_id, 0, model, LABELS, class_id, "tag", False, stored, time.time()))


def test_an_answer_is_found_at_once(opened: Opened) -> None:
    store = opened()
    record(store, "one", stored=True)
    found = store.find("one", 0)
    assert found is not None
    assert (found.model, found.labels, found.label, found.tag, found.stored, found.truth) == (
        MODEL, LABELS, "red", "tag", True, None,
    )  # fmt: skip
    assert store.find("one", 1) is None


@pytest.mark.parametrize("shared", [False, True])
def test_only_the_last_answers_are_retained(opened: Opened, tmp_path: Path, shared: bool) -> None:
    store = opened(10, tmp_path if shared else None)
    for number in range(25):
        record(store, str(number))
        if number % 7 == 0:
            store.find("x", 0)  # some are written, others still wait
    assert [number for number in range(25) if store.find(str(number), 0)] == list(range(15, 25))


def test_no_answer_is_retained_where_the_limit_is_0(opened: Opened) -> None:
    store = opened(0)
    record(store, "one")
    assert store.find("one", 0) is None


def test_an_answer_of_yesterday_is_forgotten(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    record(store, "one")
    assert store.find("one", 0) is not None
    monkeypatch.setattr(answer_store, "LONGEST_S", -1.0)
    assert store.find("one", 0) is None
    monkeypatch.setattr(answer_store, "SWEEP_S", -1.0)
    store.find("one", 0)
    monkeypatch.undo()
    assert store.find("one", 0) is None  # it is not even there any more


def test_the_truth_of_an_answer_is_settled_once_by_whoever_comes_first(opened: Opened, tmp_path: Path) -> None:
    one, two = opened(100, tmp_path), opened(100, tmp_path)
    for number in range(20):
        record(one, str(number))
    one.find("0", 0)
    with ThreadPoolExecutor(4) as pool:
        won = list(
            pool.map(lambda job: job[0].settle(str(job[1]), 0, "red"), [(o, n) for n in range(20) for o in (one, two)])
        )
    assert sum(won) == 20
    found = two.find("7", 0)
    assert found is not None
    assert found.truth == "red"


def test_accuracy_adds_up_over_processes_and_versions(opened: Opened, tmp_path: Path) -> None:
    one, two = opened(100, tmp_path), opened(100, tmp_path)
    for store, right in ((one, True), (two, True), (two, False)):
        store.count(MODEL, right)
    one.count(ModelVersion("colours", "2"), True)
    assert one.counts() == two.counts() == [(MODEL, 2, 1), (ModelVersion("colours", "2"), 1, 0)]


WRITER = """
import sys, time
from pathlib import Path
from lensmith.serving.feedback.answer_store import AnswerStore, GivenAnswer
from lensmith.serving.execution.loaded_model import ModelVersion

store = AnswerStore(1_000_000, Path(sys.argv[1]))
store.begin()
number = 0
while True:
    name, model = f"{sys.argv[2]}-{number}", ModelVersion("colours", "1")
    store.record(GivenAnswer(name, 0, model, ("blue", "red"), 1, "", False, False, time.time()))
    number += 1
    if number == 500:
        store.find("x", 0)
        print("written", flush=True)
    time.sleep(0.0001)
"""


@pytest.mark.slow
def test_processes_that_begin_together_and_are_killed_leave_the_others_all_they_wrote(
    opened: Opened, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(4)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    store = opened(1_000_000, tmp_path)
    for number in range(4):
        assert store.find(f"{number}-0", 0) is not None
        assert store.find(f"{number}-499", 0) is not None
    record(store, "after")
    assert store.find("after", 0) is not None


def test_a_table_that_cannot_be_written_is_logged_once(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.touch()  # a file, so that no folder can be made
    store = opened(100, folder)
    record(store, "one")
    eventually(lambda: caplog.records)
    folder.unlink()
    record(store, "two")
    eventually((folder / answer_store.FILE).exists)
    assert store.find("one", 0) is not None
    assert store.find("two", 0) is not None
    assert len(caplog.records) == 1


@pytest.mark.parametrize("size", [0, 5000])
def test_a_file_that_others_damage_is_begun_anew(opened: Opened, tmp_path: Path, size: int) -> None:
    first, second = opened(shared=tmp_path), opened(shared=tmp_path)
    record(first, "one")
    eventually(lambda: second.find("one", 0) is not None)
    (tmp_path / answer_store.FILE).write_bytes(b"\xff" * size)

    def found(request_id: str, store: AnswerStore) -> bool:
        try:
            return store.find(request_id, 0) is not None
        except sqlite3.Error:
            return False

    record(first, "two")
    eventually(lambda: found("two", first))
    eventually(lambda: found("two", second))


def test_a_service_can_begin_again(opened: Opened) -> None:
    store = opened()
    record(store, "one")
    store.close()
    store.begin()
    record(store, "two")
    assert store.find("two", 0) is not None


def test_a_folder_that_others_clean_costs_no_answer_and_no_process_its_file(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    first, second = opened(shared=folder), opened(shared=folder)
    record(first, "one")
    eventually(lambda: second.find("one", 0) is not None)
    first.count(MODEL, right=True)
    shutil.rmtree(folder)
    assert second.find("one", 0) is not None
    record(first, "two")
    assert first.find("two", 0) is not None
    eventually(lambda: second.find("two", 0) is not None)
    second.count(MODEL, right=True)
    assert first.counts() == [(MODEL, 2, 0)]


def test_answers_wait_for_room_on_the_disk(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(shared=tmp_path)
    record(store, "one")
    with monkeypatch.context() as full:
        full.setattr(answer_store, "_RECORD", "INSERT INTO nothing VALUES (1)")
        record(store, "two")
        with pytest.raises(sqlite3.Error):
            store.find("two", 0)
    assert store.find("one", 0) is not None
    assert store.find("two", 0) is not None
