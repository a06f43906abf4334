"""File locks, between real processes."""

import os
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


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_a_group_may_share_a_lock_unless_its_permissions_are_named(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with locked(tmp_path / "shared"), locked(tmp_path / "private", mode=0o600):
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"shared": 0o664, "private": 0o600}
