"""Sidecar channel: the files through which a service and its registry sidecar exchange state.

desired-state.json   what to serve: written by the registry sidecar, read by every process of the service
polled               touched by the sidecar after each poll that could be published
report-PID.json      what one process has counted: written by that process, summed up by the sidecar; the reports of
                     processes that have ended stay

Files, since the processes of a service come and go, and each has to find what the others left. Others may clean them
away, as /tmp is; each side then writes its own again, and uses meanwhile what it has read before.
"""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write, private_directory
from lensmith.rollout.report import RolloutReport
from lensmith.rollout.state import DesiredState

logger = logging.getLogger(__name__)

DESIRED_STATE = "desired-state.json"
POLLED = "polled"


class SidecarChannel:
    """Reads and writes both sides' files.

    Args:
        folder: folder that only this service's processes use; made again where it is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / DESIRED_STATE
        self._read: tuple[_Identity, DesiredState | None] | None = None
        self._written: _Identity | None = None
        self._reports: dict[str, RolloutReport] = {}

    def desired_state(self) -> DesiredState | None:
        """The state that was written last, the same object until another is written; None before the first."""
        identity, before = _identity(self._file), self._read[1] if self._read else None
        if identity is None or (self._read is not None and self._read[0] == identity):
            return before
        state = before
        try:
            state = DesiredState.model_validate_json(self._file.read_bytes())
        except (OSError, ValueError) as error:  # whatever harmed it, the sidecar writes it again
            logger.warning("%s cannot be read: %s", self._file, error)
        self._read = identity, state
        return state

    def write_desired_state(self, state: DesiredState) -> None:
        """Publish a new state to the processes of the service."""
        self._write(self._file, state.model_dump_json())
        self._written = _identity(self._file)

    def is_published(self) -> bool:
        """Whether the state that this object wrote last is still there."""
        return self._written is not None and _identity(self._file) == self._written

    def note_poll(self) -> None:
        """Let the service see that the sidecar has polled the registry."""
        private_directory(self.folder)
        (self.folder / POLLED).touch()

    def last_poll(self) -> int:
        """A number that changes with each `note_poll`; 0 before the first."""
        identity = _identity(self.folder / POLLED)
        return identity[1] if identity else 0

    def write_report(self, report: dict[str, Any]) -> None:
        """Replace this process's report, `RolloutReport.as_dict()`."""
        self._write(self._report_file, json.dumps(report))

    def has_report(self) -> bool:
        """Whether this process's report is there."""
        return self._report_file.exists()

    def read_reports(self) -> list[RolloutReport]:
        """The reports of all processes, including those about earlier rollouts, and those that were removed since."""
        for file in sorted(self.folder.glob("report-*.json")):
            with suppress(OSError, ValueError):
                self._reports[file.name] = RolloutReport.from_dict(json.loads(file.read_bytes()))
        return list(self._reports.values())

    @property
    def _report_file(self) -> Path:
        return self.folder / f"report-{os.getpid()}.json"

    def _write(self, file: Path, content: str) -> None:
        private_directory(self.folder)
        atomic_write(file, content, sync=False)


_Identity = tuple[int, int]
"""Inode, and time of change in nanoseconds, of a file."""


def _identity(file: Path) -> _Identity | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns
