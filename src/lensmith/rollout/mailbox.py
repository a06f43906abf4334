"""Files by which a service and the process that follows the registry for it talk.

known.json         what is to be served: written by the follower, read by every process of the service
report-PID.json    what a process has counted: written by it, added up by the follower; the dead ones' stay

Files, since the processes of a service come and go, and each has to find what the others left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write
from lensmith.rollout.report import Report
from lensmith.rollout.state import Known

KNOWN = "known.json"


class Mailbox:
    """Both sides of it.

    Args:
        folder: exists; only this service's processes use it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[int, int] | None = None
        self._known: Known | None = None

    def known(self) -> Known | None:
        """What was told last; the same object as long as nothing new was. None: nothing yet."""
        try:
            state = (self.folder / KNOWN).stat()
        except OSError:
            return self._known
        if (seen := (state.st_ino, state.st_mtime_ns)) != self._seen:
            self._known, self._seen = Known.model_validate_json((self.folder / KNOWN).read_bytes()), seen
        return self._known

    def tell(self, known: Known) -> None:
        """Let the processes of the service know."""
        atomic_write(self.folder / KNOWN, known.model_dump_json())

    def hand_in(self, report: Mapping[str, Any]) -> None:
        """Leave what this process has counted, as `Report.as_dict` says it."""
        atomic_write(self.folder / f"report-{os.getpid()}.json", json.dumps(report))

    def reports(self) -> list[Report]:
        """What all processes have left, also of earlier releases."""
        found = []
        for file in sorted(self.folder.glob("report-*.json")):
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                found.append(Report.from_dict(json.loads(file.read_text(encoding="utf-8"))))
        return found
