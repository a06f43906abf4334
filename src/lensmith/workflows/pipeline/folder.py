"""A pipeline's folder: the record of each finished stage, under the key of all that it depends on.

STAGE/KEY/result.json   record of the stage; written last, so a stage that has one is finished
STAGE/KEY/…             output of the stage: a manifest, a run folder, a bundle, reports
state.json              states of the latest run, for `lensmith pipeline show`
.lock                   locked by the process that runs the pipeline
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write
from lensmith.core.locks import LockTimeoutError, is_locked, locked
from lensmith.core.output_names import require_folder_name
from lensmith.errors import OutputError, RunError

RECORD, STATE, LOCK = "result.json", "state.json", ".lock"
WAIT_S = 15.0
"""Data-loader workers of a killed training keep the lock open until they notice its end, which takes seconds."""


@dataclass(frozen=True)
class StageRecord:
    """The record of a finished stage, as its result.json has it.

    Attributes:
        id: random identifier of this record; records of later stages refer to it.
        key: hash of the stage's settings and inputs.
        inputs: stage → id of the record that was its input.
        values: the stage's results as plain values; paths in them are relative to the stage's folder.
        seconds: duration of the stage in seconds.
        finished: time of the end, in UTC, as ISO 8601.
    """

    id: str
    key: str
    inputs: Mapping[str, str]
    values: Mapping[str, Any]
    seconds: float
    finished: str


class PipelineFolder:
    """A pipeline's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make the folder, if it is missing.

        Raises:
            OutputError: a file has its name, or it is named like one.
        """
        require_folder_name(self.path, "the pipeline, with --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"A folder was expected for the pipeline at {self.path}.",
                "A file is there.",
                "Name another with --out.",
            ) from error

    def stage_folder(self, stage: str, key: str) -> Path:
        """The folder for a stage's output and record."""
        return self.path / stage / key

    def read_record(self, stage: str, key: str) -> StageRecord | None:
        """The record of a stage; None if the stage has not finished."""
        with suppress(TypeError):
            return StageRecord(**read_json(self.stage_folder(stage, key) / RECORD))
        return None

    def records(self, stage: str) -> Iterator[tuple[Path, StageRecord]]:
        """The folders and records of a stage's results that are on disk, the newest first."""
        files = sorted((self.path / stage).glob(f"*/{RECORD}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in files:
            if (record := self.read_record(stage, file.parent.name)) is not None:
                yield file.parent, record

    def write_record(
        self, stage: str, key: str, inputs: Mapping[str, str], values: Mapping[str, Any], seconds: float
    ) -> StageRecord:
        """Record that a stage has finished."""
        finished = datetime.now(UTC).replace(microsecond=0).isoformat()
        record = StageRecord(secrets.token_hex(8), key, dict(inputs), dict(values), round(seconds, 3), finished)
        write_json(self.stage_folder(stage, key) / RECORD, vars(record))
        return record

    def prune(self, stage: str, key: str, keep: int) -> None:
        """Remove a stage's oldest results, but for `keep` of them including the one with this key."""
        others = [each for each in (self.path / stage).glob("*") if each.is_dir() and each.name != key]
        for old in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)[keep - 1 :]:
            shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder during the block, so that one process at a time runs the pipeline.

        Raises:
            RunError: another process has held the lock for WAIT_S seconds.
        """
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(self.path / LOCK, WAIT_S))
            except LockTimeoutError:
                raise RunError(
                    f"The pipeline in {self.path} was to be run by this process alone.",
                    "Another one is running it.",
                    "Let that one finish, or stop it first; its finished stages are not lost.",
                ) from None
            yield

    def is_locked(self) -> bool:
        """Whether a process runs the pipeline now."""
        lock = self.path / LOCK
        try:
            return lock.exists() and is_locked(lock)
        except OSError:  # a read-only folder
            return False


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is no file, or it holds something else."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def write_json(path: Path, content: Any) -> None:
    """Write plain values as indented JSON, atomically."""
    atomic_write(path, json.dumps(content, indent=1, default=str) + "\n")
