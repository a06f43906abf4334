"""`lensmith track` as a user calls it."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Run

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A finished run that was never tracked."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "one", ignore=shutil.ignore_patterns("*.pt")))


@pytest.mark.slow
def test_a_run_that_was_not_tracked_is_sent_when_it_is_named_and_is_listed_and_shown(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    code, printed, _ = run("track", "sync", "--json")
    assert (code, json.loads(printed)) == (0, {"runs": []})
    code, printed, _ = run("track", "sync", folder, "--json")
    assert code == 0
    (sent,) = json.loads(printed)["runs"]
    assert (sent["problem"], sent["bytes"] > 0) == (None, True)
    code, printed, _ = run("track", "list", "--json")
    assert code == 0
    (listed,) = json.loads(printed)["runs"]
    assert (listed["name"], listed["run_id"], listed["status"]) == ("one", sent["run_id"], "FINISHED")
    assert listed["best_val_accuracy"] > 0.9
    code, printed, _ = run("track", "list")
    assert code == 0
    assert "test_resnet" in printed
    shows_it(sent["run_id"], tmp_path)


def shows_it(run_id: str, folder: Path) -> None:
    """`lensmith track ui` answers with the page and the run, and Ctrl-C ends all of it with 0."""
    command = [sys.executable, "-m", "lensmith", "track", "ui", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        host, _, port = line.split("http://")[1].split()[0].partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        assert b"MLflow" in answer.read()
        connection.request("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}")
        assert json.loads(connection.getresponse().read())["run"]["info"]["run_name"] == "one"
        connection.request("GET", f"/get-artifact?path=curves.png&run_uuid={run_id}")
        assert connection.getresponse().read().startswith(b"\x89PNG")
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


def test_a_port_that_is_taken_is_a_plain_error(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, printed, said = run("track", "ui", "--port", taken.getsockname()[1])
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert "--port 0" in said


@pytest.mark.parametrize(
    ("uri", "words", "said"),
    [
        ("ftp://host/x", ["list"], "ftp://host/x"),
        ("http://127.0.0.1:9", ["ui"], "Open that address"),
        ("UNREACHABLE", ["list"], "did not"),
        ("UNREACHABLE", ["sync", "FOLDER"], "did not"),
        (None, ["list"], "There is none"),
        (None, ["sync", "nowhere"], "There is none"),
    ],
)
def test_bad_input_is_one_paragraph(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    free_port: Callable[[], int],
    uri: str | None,
    words: list[str],
    said: str,
) -> None:
    if uri is not None:
        address = f"http://127.0.0.1:{free_port()}" if uri == "UNREACHABLE" else uri
        monkeypatch.setenv("LENSMITH_TRACKING_URI", address)
    words = [str(folder) if word == "FOLDER" else word for word in words]
    code, _, told = run("track", *words)
    assert code == 2
    assert said in told
    assert (told.count("\n"), "Traceback" in told) == (1, False)
    assert not os.path.exists("runs/mlflow.db")  # noqa: PTH110
