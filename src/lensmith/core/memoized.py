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

from lensmith.core.machine import cache_dir, description

T = TypeVar("T")


def remembered(what: str, depends_on: Mapping[str, Any], measure: Callable[[], T]) -> T:
    """What `measure` returned the first time on this machine.

    Args:
        what: was measured, such as `precision`.
        depends_on: plain values; the machine's own are added.
        measure: returns a plain value for JSON; called again where nothing is remembered.
    """
    said = json.dumps([what, dict(depends_on), platform.machine(), description()], sort_keys=True)
    path = cache_dir() / "measured" / f"{what}-{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
    found: T | None = _read(path)
    if found is None:
        measured = measure()
        with contextlib.suppress(OSError):  # a folder that cannot be written to costs a trial the next time
            _write(path, {"measured": measured, "on": json.loads(said)})
        found = _read(path)  # another process may have been first
        return measured if found is None else found
    return found


def forget() -> int:
    """Forget all measurements; returns how many."""
    found = list((cache_dir() / "measured").glob("*.json"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _read(path: Path) -> Any:
    """None where there is nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads(path.read_text(encoding="utf-8"))["measured"]
    return None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """A file of another process that can be read stays, so that all of them choose alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        Path(file.name).chmod(0o644)
        if path.exists() and _read(path) is None:  # of a power cut
            path.unlink()
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(file.name)
