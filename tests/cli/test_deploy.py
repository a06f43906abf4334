"""`lensmith deploy` on the command line."""

import json
from pathlib import Path

from fixtures.command_line import Run


def test_it_says_what_was_written_and_what_comes_next(tmp_path: Path, run: Run) -> None:
    out = str(tmp_path / "nginx")
    code, said, _ = run("deploy", "nginx", "--replica", "127.0.0.1:9001", "--replica", "127.0.0.1:9002", "--out", out)
    assert code == 0
    assert "lensmith.conf" in said
    assert "Next: " in said
    text = (tmp_path / "nginx/lensmith.conf").read_text()
    assert "server 127.0.0.1:9001 " in text
    assert "server 127.0.0.1:9002 " in text


def test_json_lists_the_files(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "units"
    code, out, _ = run("deploy", "systemd", "--out", folder, "--json")
    assert code == 0
    assert json.loads(out) == {
        "kind": "systemd",
        "folder": str(folder),
        "files": ["lensmith.env", "lensmith.target", "lensmith@.service"],
    }


def test_a_taken_folder_is_bad_input(tmp_path: Path, run: Run) -> None:
    out = str(tmp_path / "nginx")
    assert run("deploy", "nginx", "--out", out)[0] == 0
    code, _, err = run("deploy", "nginx", "--out", out)
    assert code == 2
    assert "--overwrite" in err
    assert run("deploy", "nginx", "--out", out, "--overwrite")[0] == 0
