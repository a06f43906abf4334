"""What was answered lately, known to all processes of a service."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scipy.stats import binomtest

from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.feedback import answer_store
from lensmith.serving.feedback.answer_store import AnswerStore, FeedbackAccuracy

LABELS = ("blue", "green", "red")
MODEL = ModelVersion("colours", "1")


@pytest.fixture
def opened() -> Iterator[Callable[..., AnswerStore]]:
    """`opened(most, shared)`: begun, and closed at the end."""
    made: list[AnswerStore] = []

    def make(most: int = 100, shared: Path | None = None) -> AnswerStore:
        made.append(AnswerStore(most, shared))
        made[-1].begin()
        return made[-1]

    yield make
    for each in made:
        each.close()


def remember(known: AnswerStore, request_id: str, class_id: int = 2, version: str = "1", kept: bool = False) -> None:
    known.remember(request_id, 0, ModelVersion("colours", version), LABELS, class_id, "tag", kept)


def test_an_answer_is_known_at_once(opened: Callable[..., AnswerStore]) -> None:
    known = opened()
    remember(known, "one", kept=True)
    found = known.find("one", 0)
    assert found is not None
    assert (found.model, found.labels, found.label, found.tag, found.kept, found.truth) == (
        MODEL, LABELS, "red", "tag", True, None,
    )  # fmt: skip
    assert known.find("one", 1) is None


@pytest.mark.parametrize("shared", [False, True])
def test_only_the_last_answers_are_known(opened: Callable[..., AnswerStore], tmp_path: Path, shared: bool) -> None:
    known = opened(10, tmp_path if shared else None)
    for number in range(25):
        remember(known, str(number))
        if number % 7 == 0:
            known.find("x", 0)  # some are written, others still wait
    assert [number for number in range(25) if known.find(str(number), 0)] == list(range(15, 25))


def test_none_is_known_where_none_is_to_be_remembered(opened: Callable[..., AnswerStore]) -> None:
    known = opened(0)
    remember(known, "one")
    assert known.find("one", 0) is None


def test_an_answer_of_yesterday_is_forgotten(
    opened: Callable[..., AnswerStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = opened()
    remember(known, "one")
    assert known.find("one", 0) is not None
    monkeypatch.setattr(answer_store, "LONGEST_S", -1.0)
    assert known.find("one", 0) is None
    monkeypatch.setattr(answer_store, "SWEEP_S", -1.0)
    known.find("one", 0)
    monkeypatch.undo()
    assert known.find("one", 0) is None  # it is not even there any more


def test_the_truth_of_an_answer_is_settled_once_by_whoever_comes_first(
    opened: Callable[..., AnswerStore], tmp_path: Path
) -> None:
    one, two = opened(100, tmp_path), opened(100, tmp_path)
    for number in range(20):
        remember(one, str(number))
    one.find("0", 0)
    with ThreadPoolExecutor(4) as pool:
        won = list(
            pool.map(lambda job: job[0].settle(str(job[1]), 0, "red"), [(o, n) for n in range(20) for o in (one, two)])
        )
    assert sum(won) == 20
    found = two.find("7", 0)
    assert found is not None
    assert found.truth == "red"


def test_accuracy_adds_up_over_processes_and_versions(opened: Callable[..., AnswerStore], tmp_path: Path) -> None:
    one, two = opened(100, tmp_path), opened(100, tmp_path)
    for known, right in ((one, True), (two, True), (two, False)):
        known.count(MODEL, right)
    one.count(ModelVersion("colours", "2"), True)
    expected = [FeedbackAccuracy(MODEL, 3, 2), FeedbackAccuracy(ModelVersion("colours", "2"), 1, 1)]
    assert one.accuracy() == two.accuracy() == expected


@pytest.mark.parametrize(("right", "heard"), [(0, 1), (1, 1), (3, 4), (50, 100), (997, 1000)])
def test_the_interval_is_wilsons(right: int, heard: int) -> None:
    expected = binomtest(right, heard).proportion_ci(0.95, method="wilson")
    assert FeedbackAccuracy(MODEL, heard, right).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


WRITER = """
import sys, time
from pathlib import Path
from lensmith.serving.feedback.answer_store import AnswerStore
from lensmith.serving.execution.loaded_model import ModelVersion

known = AnswerStore(1_000_000, Path(sys.argv[1]))
known.begin()
number = 0
while True:
    known.remember(f"{sys.argv[2]}-{number}", 0, ModelVersion("colours", "1"), ("blue", "red"), 1, "", False)
    number += 1
    if number == 500:
        known.find("x", 0)
        print("written", flush=True)
    time.sleep(0.0001)
"""


@pytest.mark.slow
def test_processes_that_begin_together_and_are_killed_leave_the_others_all_they_wrote(
    opened: Callable[..., AnswerStore], tmp_path: Path
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
    known = opened(1_000_000, tmp_path)
    for number in range(4):
        assert known.find(f"{number}-0", 0) is not None
        assert known.find(f"{number}-499", 0) is not None
    remember(known, "after")
    assert known.find("after", 0) is not None


def test_a_table_that_cannot_be_written_stops_nothing_and_is_said_once(
    opened: Callable[..., AnswerStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    known = opened(100, folder)  # nothing is there, so nothing can be opened
    remember(known, "one")
    end = time.monotonic() + 30
    while not caplog.records:
        assert time.monotonic() < end
        time.sleep(0.02)
    folder.mkdir()
    remember(known, "two")
    end = time.monotonic() + 30
    while (folder / answer_store.FILE).exists() is False:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert known.find("two", 0) is not None
    assert len(caplog.records) == 1


def test_a_service_can_begin_again(opened: Callable[..., AnswerStore]) -> None:
    known = opened()
    remember(known, "one")
    known.close()
    known.begin()
    remember(known, "two")
    assert known.find("two", 0) is not None
