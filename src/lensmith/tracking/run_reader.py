"""Run reader: reads a run folder for tracking, run.json (settings, data) and events.jsonl (what has happened).

The training writes both and does not depend on tracking. A line that a kill left incomplete is skipped.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lensmith.core.locks import is_locked

DESCRIPTION, EVENTS, TRAINING = "run.json", "events.jsonl", ".lock"
"""File names of `lensmith.training.run_dir`, which this room may not import."""

STARTS = ("start", "resume")
"""Events before which a run may disappear again with its folder."""


def read_description(run: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    return dict(json.loads((run / DESCRIPTION).read_text(encoding="utf-8")))


def begun_at(run: Path) -> float:
    """Unix time in seconds at which a run began, by its first event or by run.json."""
    first, _ = next(read_events(run), ({}, 0))
    return float(first["time"]) if "time" in first else (run / DESCRIPTION).stat().st_mtime


def read_events(run: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Complete events from a byte offset on, each with the offset after it."""
    try:
        with (run / EVENTS).open("rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    for line in lines:
        offset += len(line) + 1
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                yield event, offset


def has_unsent(run: Path, offset: int, begun: bool) -> bool:
    """Whether there are events to send from a byte offset on; before a run has begun, there are none."""
    return any(begun or event["event"] in STARTS for event, _ in read_events(run, offset))


def is_training(run: Path) -> bool:
    """Whether a process is training the run and holds the folder's lock.

    Raises:
        FileNotFoundError: the folder is missing.
    """
    return is_locked(run / TRAINING)
