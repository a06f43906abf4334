"""What was measured on this machine, kept for the next time: a choice by what it depends on.

A trial costs seconds, and says the same as long as machine, libraries and shapes are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lensmith.machine import allowed_cores, cache_dir, instruction_sets

T = TypeVar("T")


def remembered(what: str, depends_on: Mapping[str, Any], measure: Callable[[], T]) -> T:
    """What `measure` returned the first time on this machine.

    Args:
        what: was measured, such as `precision`.
        depends_on: plain values; the machine's own are added.
        measure: returns a plain value for JSON; called again where nothing is remembered.
    """
    machine = [platform.machine(), platform.processor(), _model(), instruction_sets(), allowed_cores()]
    said = json.dumps([what, dict(depends_on), machine], sort_keys=True)
    path = cache_dir() / "measured" / f"{what}-{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        found: T = json.loads(path.read_text(encoding="utf-8"))["measured"]
        return found
    measured = measure()
    with contextlib.suppress(OSError):  # a folder that cannot be written to costs a trial the next time
        if not _write(path, {"measured": measured, "on": json.loads(said)}):  # another process was first
            return remembered(what, depends_on, lambda: measured)
    return measured


def forget() -> int:
    """Forget all measurements; returns how many."""
    found = list((cache_dir() / "measured").glob("*.json"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _write(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether it is there now; a readable file of another process stays, so that all of them choose alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(file.name)
            return True
    if path.stat().st_size == 0:  # of a power cut
        path.unlink()
    return False


def _model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    with contextlib.suppress(OSError):
        return next((line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), "")
    return ""
