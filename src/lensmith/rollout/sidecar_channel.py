"""Sidecar channel: the files through which a service and its registry sidecar exchange state.

desired-state.json   what to serve: written by the registry sidecar, read by every process of the service
report-PID.json      what one process has counted: written by that process, summed up by the sidecar; the reports of
                     processes that have ended stay

Files, since the processes of a service come and go, and each has to find what the others left.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write
from lensmith.rollout.report import RolloutReport
from lensmith.rollout.state import DesiredState

DESIRED_STATE = "desired-state.json"


class SidecarChannel:
    """Reads and writes both sides' files.

    Args:
        folder: existing folder that only this service's processes use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / DESIRED_STATE
        self._read: tuple[tuple[int, int], DesiredState] | None = None

    def desired_state(self) -> DesiredState | None:
        """The state that was written last, the same object until another is written; None before the first."""
        try:
            stat = self._file.stat()
        except OSError:
            return self._read[1] if self._read else None
        identity = stat.st_ino, stat.st_mtime_ns
        if self._read is None or self._read[0] != identity:
            self._read = identity, DesiredState.model_validate_json(self._file.read_bytes())
        return self._read[1]

    def write_desired_state(self, state: DesiredState) -> None:
        """Publish a new state to the processes of the service."""
        atomic_write(self._file, state.model_dump_json(), sync=False)

    def write_report(self, report: dict[str, Any]) -> None:
        """Replace this process's report, `RolloutReport.as_dict()`."""
        atomic_write(self.folder / f"report-{os.getpid()}.json", json.dumps(report), sync=False)

    def read_reports(self) -> list[RolloutReport]:
        """The reports of all processes, including those about earlier rollouts."""
        found = []
        for file in sorted(self.folder.glob("report-*.json")):
            with suppress(OSError, ValueError):
                found.append(RolloutReport.from_dict(json.loads(file.read_bytes())))
        return found
