"""`lensmith bench` on the command line."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import Run


@pytest.fixture
def url(server_of: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("lensmith.ops.loadtest.run.SYNTHETIC_IMAGES", 1)  # each takes tens of milliseconds
    return str(server_of(lambda number: answer(wait_s=0.002)).url)


def test_people_get_a_table(run: Run, url: str, tmp_path: Path) -> None:
    code, out, err = run("bench", url, "--duration", "1s", "--warmup-time", "0s", "--rate", "50", "--out", tmp_path)
    assert (code, err) == (0, "")
    for said in ("a second offered", "2xx within 200 ms", "p99.9", "from when due", "200: ", "client: ", "bench.png"):
        assert said in out


def test_programs_get_one_line(run: Run, url: str) -> None:
    code, out, err = run("bench", url, "--duration", "0.3s", "--warmup-time", "0", "--clients", "2", "--json")
    found = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert found["mode"] == "closed"
    assert found["by_status"] == {"200": found["requests"]}


def test_a_service_that_is_not_there_is_one_plain_paragraph(run: Run) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        code, out, err = run("bench", f"http://127.0.0.1:{unheard.getsockname()[1]}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "A service that answers was expected at http://127.0.0.1:" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere"], "The URL of a service, or a bundle"),
        (["http://127.0.0.1:9", "--rate", "0"], "rate"),
        (["http://127.0.0.1:9", "--image-files", "nowhere"], "A JPEG or PNG file"),
    ],
)
def test_bad_input_is_one_paragraph(run: Run, args: list[str], said: str) -> None:
    code, out, err = run("bench", *args)
    assert (code, out) == (2, "")
    assert said in err
