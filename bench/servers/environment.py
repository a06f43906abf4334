"""Python environments of the peers, as their pins need not agree with lensmith's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from lensmith.core.machine import cache_dir

HERE = Path(__file__).parent


class UnavailableError(Exception):
    """A server cannot run here; the message is the reason."""


def python_of(peer: str) -> Path:
    """The interpreter of an environment with `requirements-PEER.txt`, which is made where it is missing.

    Raises:
        UnavailableError: pip cannot install it.
    """
    requirements = HERE / f"requirements-{peer}.txt"
    folder = cache_dir() / "bench-servers" / peer
    python, mark = folder / "bin" / "python", folder / "ready"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {peer} into {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
            requirements,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise UnavailableError(f"pip cannot install it ({errors[-1][:160] if errors else done.returncode})")
        mark.write_text(wanted)
    return python
