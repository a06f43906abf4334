"""Log lines."""

import json
import logging
import os
import shutil
import time
from pathlib import Path

import pytest

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.serving.metrics import logs
from lensmith.serving.metrics.logs import MAX_QUEUED, dropped_lines, logging_as, require_log_file

logger = logging.getLogger("lensmith.serving.test")


def settings(**given: object) -> ServeSettings:
    return ServeSettings.model_validate({"bundle": "b", **given})


def test_json_lines_hold_what_came_with_them_and_the_trace_of_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with logging_as(settings(log_format="json", log_file=file)):
        logger.info("answered %s", 7, extra={"request_id": "a1"})
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("failed")
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first["message"] == "answered 7"
    assert (first["level"], first["request_id"]) == ("info", "a1")
    assert first["time"].endswith("+00:00")
    assert "ValueError: broken" in second["trace"]


def test_text_lines_are_for_people(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with logging_as(settings(log_file=file)):
        logger.info("ready")
    assert file.read_text().strip().endswith("INFO lensmith.serving.test: ready")


def test_a_disk_that_is_full_holds_nothing_up_and_is_reported_once_and_counted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = dropped_lines.total
    with logging_as(settings(log_file="/dev/full")):
        for number in range(100):
            logger.info("line %d", number)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("No space left on device") == 1
    assert dropped_lines.total == before + 100


@pytest.mark.parametrize("name", ["none/log", ".", "file/log"])
def test_a_log_file_that_cannot_be_opened_is_refused_before_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError) as refused:
        require_log_file(settings(log_file=tmp_path / name))
    assert str(tmp_path / name) in refused.value.expected
    require_log_file(settings(log_file=tmp_path / "log"))


def test_a_folder_that_is_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FOLDER_S", 0.0)
    file = tmp_path / "logs" / "log"
    file.parent.mkdir()
    with logging_as(settings(log_file=file)):
        logger.info("before")
        shutil.rmtree(file.parent)
        end = time.monotonic() + 5
        while not (file.exists() and "after" in file.read_text()):
            assert time.monotonic() < end
            logger.info("after")
            time.sleep(0.01)


def test_a_folder_that_is_moved_away_and_back_costs_the_lines_between(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    folder.mkdir()
    file = folder / "log"

    def written(line: str) -> None:
        end = time.monotonic() + 5
        while line not in (file.read_text() if file.exists() else ""):
            assert time.monotonic() < end
            logger.info(line)
            time.sleep(0.01)

    with logging_as(settings(log_file=file)):
        written("before")
        folder.rename(elsewhere)
        for _ in range(3):
            logger.info("meanwhile")
        time.sleep(0.05)  # by then the thread has usually met what it has to survive
        elsewhere.rename(folder)
        written("after")
    assert "before" in file.read_text()


def test_a_reader_that_stalls_costs_lines_and_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensmith.serving.metrics.logs.FLUSH_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with logging_as(settings(log_file=pipe)):
            for _ in range(2 * MAX_QUEUED):
                logger.info("x" * 100)  # would wait for ever
    finally:
        os.close(reader)
