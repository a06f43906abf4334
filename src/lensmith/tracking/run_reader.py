"""A run folder as what is to be sent: run.json says what is trained on what, events.jsonl what has happened.

Both are written by the training, which knows nothing of this; a line that a kill left unfinished is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DESCRIPTION, EVENTS, TRAINING = "run.json", "events.jsonl", ".lock"
"""As `lensmith.training.run_dir` names them, which this room may not import."""

STARTS = ("start", "resume")
"""Events before which a run may vanish again with its folder."""


@dataclass(frozen=True)
class RunReader:
    """A run folder that is sent from.

    Attributes:
        run: the folder.
    """

    run: Path

    def description(self) -> dict[str, Any]:
        """What stands in run.json.

        Raises:
            OSError, ValueError: it is gone or damaged.
        """
        return dict(json.loads((self.run / DESCRIPTION).read_text(encoding="utf-8")))

    def begun_at(self) -> float:
        """Unix time at which the run began, as far as its files tell."""
        for event, _ in self.events(0):
            if "time" in event:
                return float(event["time"])
            break
        return (self.run / DESCRIPTION).stat().st_mtime

    def changed_at_ms(self) -> int:
        """Unix time in milliseconds at which the run told something last."""
        return round(1000 * (self.run / EVENTS).stat().st_mtime)

    def events(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Whole events from that byte on, and the byte after each."""
        for line in self._rest(offset).split(b"\n")[:-1]:
            offset += len(line) + 1
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    yield event, offset

    def waiting(self, offset: int, begun: bool) -> bool:
        """Whether there is something to send from that byte on; before a run has begun, nothing is."""
        return any(begun or event["event"] in STARTS for event, _ in self.events(offset))

    def trained_now(self) -> bool:
        """Whether a process is training the run: it holds the folder's lock, which the system takes from the dead.

        Raises:
            FileNotFoundError: the folder is gone.
        """
        from filelock import FileLock, Timeout

        self.run.stat()  # the lock would make the folder
        lock = FileLock(self.run / TRAINING)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def _rest(self, offset: int) -> bytes:
        try:
            with (self.run / EVENTS).open("rb") as file:
                file.seek(offset)
                return file.read()
        except FileNotFoundError:
            return b""
