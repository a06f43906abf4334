"""File locks, between real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.core.locks import LockTimeoutError, is_locked, locked

HOLD = """
import sys
from pathlib import Path
from lensmith.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_of_another_process_is_seen_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(LockTimeoutError), locked(path, timeout_s=0.05):
            pytest.fail("two processes held it")
        other.kill()
    assert not is_locked(path)
    with locked(path, timeout_s=0):
        assert path.exists()


def test_a_lock_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "gone" / ".lock"):
        pytest.fail("it was held")
    assert not (tmp_path / "gone").exists()
