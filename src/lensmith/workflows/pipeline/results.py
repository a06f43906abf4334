"""The pipeline's folder: what each stage came to, under the key of all that it depends on.

STAGE/KEY/result.json   what it came to; written last, so what has one is finished
STAGE/KEY/…             what it made: a manifest, a run folder, a bundle, reports
state.json              where the pipeline stands, for `lensmith pipeline show`
contents.json           hashes of the images
.lock                   held by the process that is at it
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lensmith.errors import OutputError, RunError

RESULT, STATE, CONTENTS, LOCK = "result.json", "state.json", "contents.json", ".lock"
WAIT_S = 15.0
"""Data workers of a killed training hold its files open until they notice that it is gone, which takes seconds."""


@dataclass(frozen=True)
class Result:
    """What a stage came to.

    Attributes:
        id: of this very result; those made of it name it.
        key: of the settings and inputs.
        inputs: stage → id of the result that it was made of.
        values: plain values; paths in them are relative to the stage's folder.
        seconds: that it took.
        finished: when, in UTC.
    """

    id: str
    key: str
    inputs: Mapping[str, str]
    values: Mapping[str, Any]
    seconds: float
    finished: str


class Results:
    """A pipeline's folder.

    Args:
        folder: of the pipeline; made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make the folder, if it is not there.

        Raises:
            OutputError: a file is in its place.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"A folder was expected for the pipeline at {self.folder}.",
                "A file is there.",
                "Name another with --out.",
            ) from error

    def place(self, stage: str, key: str) -> Path:
        """Where a stage works, and leaves what it made."""
        return self.folder / stage / key

    def read(self, stage: str, key: str) -> Result | None:
        """What it came to; None where it has not been finished."""
        with suppress(OSError, ValueError, TypeError):
            return Result(**json.loads((self.place(stage, key) / RESULT).read_bytes()))
        return None

    def write(
        self, stage: str, key: str, inputs: Mapping[str, str], values: Mapping[str, Any], seconds: float
    ) -> Result:
        """Note that a stage is finished."""
        finished = datetime.now(UTC).replace(microsecond=0).isoformat()
        result = Result(secrets.token_hex(8), key, dict(inputs), dict(values), round(seconds, 3), finished)
        write_whole(self.place(stage, key) / RESULT, json.dumps(vars(result), indent=1, default=str))
        return result

    def prune(self, stage: str, key: str, keep: int) -> None:
        """Remove a stage's oldest results, but for `keep` and the one that is in use."""
        others = [each for each in (self.folder / stage).glob("*") if each.is_dir() and each.name != key]
        for old in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)[keep - 1 :]:
            shutil.rmtree(old, ignore_errors=True)

    def note(self, state: Mapping[str, Any]) -> None:
        """Say where the pipeline stands."""
        write_whole(self.folder / STATE, json.dumps(state, indent=1, default=str))

    def state(self) -> dict[str, Any] | None:
        """What was said last; None where it never ran."""
        with suppress(OSError, ValueError):
            found = json.loads((self.folder / STATE).read_bytes())
            return found if isinstance(found, dict) else None
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it when the process ends, however it ends.

        Raises:
            RunError: another process has held it for WAIT_S seconds.
            OutputError: as `make`.
        """
        from filelock import FileLock, Timeout

        self.make()
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=WAIT_S)
        except Timeout:
            raise RunError(
                f"The pipeline in {self.folder} was to be run by this process alone.",
                "Another one is running it.",
                "Let that one finish, or stop it first; what it has finished is kept.",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether a process is at it now."""
        from filelock import FileLock, Timeout

        if not (self.folder / LOCK).exists():
            return False
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # a folder that may only be read
            return False
        lock.release()
        return False


def write_whole(path: Path, text: str) -> None:
    """Write a whole file or none, whenever the process or the power ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
