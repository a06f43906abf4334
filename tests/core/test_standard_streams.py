"""Standard streams that are closed, full or gone: the program goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from lensmith.core.standard_streams import open_closed_streams, tolerate_full_stderr
open_closed_streams()
tolerate_full_stderr()
file = os.open("file", os.O_WRONLY | os.O_CREAT)
for number in range(3):
    print("lines " * 2000, number, file=sys.stderr, flush=True)
print("said")
os.write(file, b"its own")
"""


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&1 >&- | true", "0<&- 1>&- 2>&-"])
def test_what_standard_error_does_not_take_is_lost_and_nothing_else(tmp_path: Path, redirection: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    script = f"{sys.executable} program.py {redirection}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "0"
    assert (tmp_path / "file").read_text() == "its own"
