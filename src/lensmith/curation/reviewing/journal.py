"""The journal of a review: JSON lines, to which every decision is appended and synced before it is acknowledged.

    {"journal": "lensmith review", "version": 1, "source": "photos", "root": "photos", "kind": "set", "begun": "…"}
    {"id": "…", "at": "2026-11-30T09:12:44.120Z", "by": "anna", "path": "cat/7.jpg", "action": "label",
     "label": "dog", "before": "cat", "content": "18231-5f0c…", "undoes": ""}

A process that is killed while it writes leaves a last line without its end; it was not acknowledged, and is cut off
when the journal is opened again. A decision whose `id` is in the journal already is not written again, so that a client
may repeat a request whose answer was lost.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lensmith.core.files import atomic_write, sync_directory
from lensmith.core.locks import LockTimeoutError, locked
from lensmith.curation.reviewing.items import ReviewSource
from lensmith.errors import DataError, OutputError

NAME = "lensmith review"
VERSION = 1

Action = Literal["label", "exclude", "skip", "undo"]


@dataclass(frozen=True)
class LabelDecision:
    """One line of the journal.

    Attributes:
        id: name that the client gave the decision, unique.
        by: name of the reviewer.
        path: path of the picture, as the source names it.
        action: `label`, `exclude` (the picture belongs to no class), `skip` (left for later), or `undo`.
        label: label that was given; empty for other actions.
        before: label before the decision; empty where there was none.
        content: stamp of the picture's content, by `content_stamp`.
        undoes: id of the decision that an `undo` takes back.
        at: time in UTC, ISO 8601.
    """

    id: str
    by: str
    path: str
    action: Action
    label: str = ""
    before: str = ""
    content: str = ""
    undoes: str = ""
    at: str = ""

    @classmethod
    def of(cls, line: dict[str, Any]) -> "LabelDecision":
        """A decision from its line.

        Raises:
            ValueError: a line without the fields of a decision.
        """
        known = {name: line.get(name, "") for name in cls.__dataclass_fields__}
        if not all(isinstance(value, str) for value in known.values()) or not known["id"] or not known["path"]:
            raise ValueError("the line is no decision")
        if known["action"] not in ("label", "exclude", "skip", "undo"):
            raise ValueError(f"the action {known['action']!r} is not known")
        return cls(**known)


class Journal:
    """An open journal. Safe to append to from several threads; `opened` keeps other processes out.

    Attributes:
        path: path of the file.
        decisions: all decisions, oldest first.
    """

    def __init__(self, path: Path, decisions: list[LabelDecision], descriptor: int) -> None:
        self.path = path
        self.decisions = decisions
        self._known = {decision.id: decision for decision in decisions}
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def find(self, name: str) -> LabelDecision | None:
        """The decision with that id; None where the journal has none."""
        return self._known.get(name)

    def append(self, decision: LabelDecision) -> LabelDecision:
        """Write a decision and wait until it is on disk; a repeated id returns the decision that was written first.

        Raises:
            OSError: the disk is full, or gone; nothing of the line stays in the file then.
        """
        with self._lock:
            if (known := self._known.get(decision.id)) is not None:
                return known
            made = decision if decision.at else LabelDecision(**{**asdict(decision), "at": now()})
            line = (json.dumps(asdict(made), ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise
            self.decisions.append(made)
            self._known[made.id] = made
            return made


def now() -> str:
    """The time in UTC, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def opened(path: Path, source: ReviewSource) -> Iterator[Journal]:
    """Open the journal of a source for appending, or begin one; no other process may have it open.

    Args:
        path: path of the journal; its folder must exist.
        source: pictures that are reviewed, for the first line.

    Raises:
        OutputError: another process has it open, or the folder cannot be written to.
        DataError: the file is no journal, or damaged before its last line.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        with locked(lock, timeout_s=0):
            if not path.exists():
                first = {
                    "journal": NAME, "version": VERSION, "source": str(source.path), "root": str(source.root),
                    "kind": source.kind, "begun": now(),
                }  # fmt: skip
                atomic_write(path, json.dumps(first, ensure_ascii=False) + "\n")
            decisions, end = _read(path)
            descriptor = os.open(path, os.O_RDWR)
            try:
                if os.fstat(descriptor).st_size > end:  # half a line of a process that was killed
                    os.ftruncate(descriptor, end)
                    os.fsync(descriptor)
                sync_directory(path.parent)
                yield Journal(path, decisions, descriptor)
            finally:
                os.close(descriptor)
    except LockTimeoutError as error:
        raise OutputError(
            f"A journal that nobody else writes to was expected at {path}.",
            "Another `lensmith review` has it open.",
            "Open the page of that one, where several people can review at once; or name another file with --out.",
        ) from error


def read(path: Path) -> list[LabelDecision]:
    """The decisions of a journal, which another process may be writing to; half a last line is left out.

    Raises:
        DataError: the file is missing, no journal, or damaged before its last line.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[LabelDecision], int]:
    """The decisions, and the number of bytes that whole lines take."""
    expected = f"The journal of a review was expected at {path}."
    remedy = "Name another file with --out, or restore the journal from a copy."
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(expected, f"It cannot be read ({error.strerror}).", remedy) from error
    end = content.rfind(b"\n") + 1
    lines = content[:end].split(b"\n")[:-1]
    try:
        first: Any = json.loads(lines[0]) if lines else None
    except ValueError:
        first = None
    if not isinstance(first, dict) or first.get("journal") != NAME:
        raise DataError(expected, "It is something else: its first line is not that of a journal.", remedy)
    if first.get("version") != VERSION:
        arrived = f"It has version {first.get('version')}, and this lensmith reads version {VERSION}."
        raise DataError(expected, arrived, "Use the lensmith that has written it.")
    decisions: dict[str, LabelDecision] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            decision = LabelDecision.of(json.loads(line.decode("utf-8", "surrogateescape")))
        except (ValueError, AttributeError) as error:
            raise DataError(expected, f"Its line {number} is damaged ({error}).", remedy) from error
        decisions.setdefault(decision.id, decision)
    return list(decisions.values()), end
