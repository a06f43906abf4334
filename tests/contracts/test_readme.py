"""Every command and every line of Python in README.md runs, in the order in which it stands there, on fewer images."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_BY_CI = ("make demo", "make test")
SMALLER = {"--max-train 2000 --max-test 500": "--max-train 300 --max-test 100", "--image-size 80": "--image-size 48"}
SMALLER |= {"--epochs 4": "--epochs 3", "--duration 5s": "--duration 1s"}
"""Sizes in the README → those of the test."""


def script() -> str:
    """The README as one bash script; `make` is left to .ci/run, which runs both."""
    lines, readme = ["set -euo pipefail"], (ROOT / "README.md").read_text()
    for size, smaller in SMALLER.items():
        assert size in readme
        readme = readme.replace(size, smaller)
    for kind, text in BLOCK.findall(readme):
        if kind == "python":
            lines += ["python - <<'END_OF_PYTHON'", text.rstrip(), "END_OF_PYTHON"]
            continue
        for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
            if command.startswith(RUN_BY_CI):
                continue
            lines += [f"echo '+' {command!r}" if "'" not in command else "echo +", command]
            if command.startswith("lensmith serve"):
                port = re.search(r"--port (\d+)", command)
                address = f"http://127.0.0.1:{port[1] if port else 8000}/readyz"
                lines.append(f"until curl -sf {address} >/dev/null; do sleep 0.2; done")
    return "\n".join([*lines, "kill $(jobs -p)", "wait"])


def test_the_two_commands_stand_at_the_top() -> None:
    commands = re.findall(r"^\$ (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [command.split("#")[0].strip() for command in commands[:2]] == list(RUN_BY_CI)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", script()], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1100
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
