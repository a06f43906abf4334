"""Run reader: reads a run folder for tracking, run.json (settings, data) and events.jsonl (what has happened).

The training writes both and does not depend on tracking. A line that a kill left incomplete is skipped.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.core.locks import is_locked

DESCRIPTION, EVENTS, TRAINING = "run.json", "events.jsonl", ".lock"
"""File names of `lensmith.training.run_dir`, which this room may not import."""

STARTS = ("start", "resume")
"""Events before which a run may disappear again with its folder."""


@dataclass(frozen=True)
class RunReader:
    """Reads one run folder.

    Attributes:
        run: path of the folder.
    """

    run: Path

    def description(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        return dict(json.loads((self.run / DESCRIPTION).read_text(encoding="utf-8")))

    def begun_at(self) -> float:
        """Unix time in seconds at which the run began, by its first event or by run.json."""
        for event, _ in self.events(0):
            if "time" in event:
                return float(event["time"])
            break
        return (self.run / DESCRIPTION).stat().st_mtime

    def changed_at_ms(self) -> int:
        """Unix time in milliseconds of the last event."""
        return round(1000 * (self.run / EVENTS).stat().st_mtime)

    def events(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Complete events from a byte offset on, each with the offset after it."""
        for line in self._rest(offset).split(b"\n")[:-1]:
            offset += len(line) + 1
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    yield event, offset

    def has_unsent(self, offset: int, begun: bool) -> bool:
        """Whether there are events to send from a byte offset on; before a run has begun, there are none."""
        return any(begun or event["event"] in STARTS for event, _ in self.events(offset))

    def is_training(self) -> bool:
        """Whether a process is training the run and holds the folder's lock.

        Raises:
            FileNotFoundError: the folder is missing.
        """
        return is_locked(self.run / TRAINING)

    def _rest(self, offset: int) -> bytes:
        try:
            with (self.run / EVENTS).open("rb") as file:
                file.seek(offset)
                return file.read()
        except FileNotFoundError:
            return b""
