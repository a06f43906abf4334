"""`lensmith deploy` on the command line."""

import json
from pathlib import Path

import pytest

from lensmith.cli import main


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["deploy", *args])
    return int(ended.value.code or 0)


def test_it_says_what_was_written_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "nginx")
    assert run("nginx", "--replica", "127.0.0.1:9001", "--replica", "127.0.0.1:9002", "--out", out) == 0
    said = capsys.readouterr().out
    assert "lensmith.conf" in said
    assert "Next: " in said
    text = (tmp_path / "nginx/lensmith.conf").read_text()
    assert "server 127.0.0.1:9001 " in text
    assert "server 127.0.0.1:9002 " in text


def test_json_lists_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "units"
    assert run("systemd", "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "kind": "systemd",
        "folder": str(out),
        "files": ["lensmith.env", "lensmith.target", "lensmith@.service"],
    }


def test_a_taken_folder_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "nginx")
    assert run("nginx", "--out", out) == 0
    assert run("nginx", "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("nginx", "--out", out, "--overwrite") == 0
