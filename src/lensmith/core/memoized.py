"""Measurements memoized on disk: one trial for each machine, set of libraries and shapes.

A trial takes seconds, and gives the same result as long as these do not change.
"""

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lensmith.core.file_memo import clear_file_memo
from lensmith.core.files import atomic_write
from lensmith.core.locks import locked
from lensmith.core.machine import cache_dir, description

T = TypeVar("T")


def memoized_on_disk(name: str, depends_on: Mapping[str, Any], measure: Callable[[], T]) -> T:
    """The result of `measure`, called once on this machine for the same values.

    Args:
        name: name of the measurement, such as `precision`.
        depends_on: plain values that the result depends on; those of the machine are added.
        measure: function that returns a plain value for JSON.
    """
    key = json.dumps([name, dict(depends_on), platform.machine(), description()], sort_keys=True)
    path = cache_dir() / "measured" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    found: T | None = _read(path)
    if found is not None:
        return found
    measured = measure()
    with contextlib.suppress(OSError):  # a folder that cannot be written to costs a trial the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / ".lock"):
            # Another process may have been first: its result stays, so that all processes use the same.
            found = _read(path)
            if found is None:
                atomic_write(path, json.dumps({"measured": measured, "on": json.loads(key)}) + "\n")
    return measured if found is None else found


def clear_memoized() -> int:
    """Remove all measurements, and what is memoized for files, which counts as one; returns their number."""
    found = list((cache_dir() / "measured").glob("*.json"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found) + clear_file_memo()


def _read(path: Path) -> Any:
    """The result in a file; None if there is no readable one."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads(path.read_text(encoding="utf-8"))["measured"]
    return None
