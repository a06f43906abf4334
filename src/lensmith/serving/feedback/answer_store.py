"""Answer store: recent answers (identifiers, versions, class indices), for feedback on them and online accuracy.

All processes of a service share one SQLite file in their folder of measurements, which is removed with the service; a
single process has the table in memory. A request only appends to a queue; a thread writes it a few times a second.
"""

import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lensmith.core.files import private_directory
from lensmith.core.locks import LockTimeoutError, locked
from lensmith.serving.execution.loaded_model import ModelVersion

logger = logging.getLogger(__name__)

FLUSH_S = 0.2
"""Seconds between two writes, after which other processes find an answer."""
LONGEST_S = 86_400.0
"""Age in seconds at which an answer is removed, however few there are."""
SWEEP_S = 60.0
"""Seconds between two removals of old answers."""
FILE = "answers.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, labels TEXT NOT NULL,
    UNIQUE (name, version, labels)
);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY, request_id TEXT NOT NULL, image INTEGER NOT NULL, model INTEGER NOT NULL,
    class_id INTEGER NOT NULL, tag TEXT NOT NULL, known INTEGER NOT NULL, stored INTEGER NOT NULL,
    at REAL NOT NULL, truth TEXT,
    UNIQUE (request_id, image)
);
CREATE TABLE IF NOT EXISTS feedback (
    name TEXT NOT NULL, version TEXT NOT NULL, right INTEGER NOT NULL, wrong INTEGER NOT NULL,
    PRIMARY KEY (name, version)
);
"""
_RECORD = """
INSERT INTO answers (request_id, image, model, class_id, tag, known, stored, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (request_id, image) DO UPDATE SET
    model = excluded.model, class_id = excluded.class_id, tag = excluded.tag, known = excluded.known,
    stored = excluded.stored, at = excluded.at
WHERE truth IS NULL
"""
_FIND = """
SELECT name, version, labels, class_id, tag, known, stored, truth
FROM answers JOIN models ON answers.model = models.number
WHERE request_id = ? AND image = ? AND at >= ?
"""
_COUNT = """
INSERT INTO feedback (name, version, right, wrong) VALUES (?, ?, ?, ?)
ON CONFLICT (name, version) DO UPDATE SET right = right + excluded.right, wrong = wrong + excluded.wrong
"""


@dataclass(frozen=True)
class RecordedAnswer:
    """An answer that was given.

    Attributes:
        model: version that answered.
        labels: the version's labels.
        label: label that was answered.
        tag: rollout and role of the model, as `flowers-7/challenger`; empty without a rollout.
        known: whether a model of the rollout learnt from the image or was chosen on it.
        stored: True where the upload was to be stored.
        truth: true label; None before feedback.
        in_table: False where only the stored upload tells of the answer.
    """

    model: ModelVersion
    labels: tuple[str, ...]
    label: str
    tag: str
    known: bool
    stored: bool
    truth: str | None
    in_table: bool = True


class GivenAnswer(NamedTuple):
    """An answer to record: `at` is its time in seconds since 1970, the other fields are those of RecordedAnswer."""

    request_id: str
    image: int
    model: ModelVersion
    labels: tuple[str, ...]
    class_id: int
    tag: str
    known: bool
    stored: bool
    at: float


class AnswerStore:
    """The last `most` answers of a service; `shared` is the folder of all its processes, if there are several."""

    def __init__(self, most: int, shared: Path | None = None) -> None:
        self._most, self._folder = most, shared
        self.shared = shared is not None
        self._new: deque[GivenAnswer] = deque(maxlen=most)
        self._numbers: dict[tuple[ModelVersion, tuple[str, ...]], int] = {}
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._writing: list[GivenAnswer] = []  # those of the transaction that is open
        self._inode: int | None = None
        self._swept = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread that writes."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, and close the file."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None
            self._numbers.clear()

    def record(self, answer: GivenAnswer) -> None:
        """Queue an answer; takes a microsecond."""
        self._new.append(answer)

    def find(self, request_id: str, image: int) -> RecordedAnswer | None:
        """An answer, if it is recorded; waits for the disk."""
        with self._transaction() as database:
            self._write(database)
            row = database.execute(_FIND, (request_id, image, time.time() - LONGEST_S)).fetchone()
        if row is None:
            return None
        name, version, labels, class_id, tag, known, stored, truth = row
        labels, model = tuple(json.loads(labels)), ModelVersion(name, version)
        return RecordedAnswer(model, labels, labels[class_id], tag, bool(known), bool(stored), truth)

    def settle(self, request_id: str, image: int, truth: str) -> bool:
        """Write the true label of an answer; False where it has one already. Waits for the disk."""
        with self._transaction() as database:
            done = database.execute(
                "UPDATE answers SET truth = ? WHERE request_id = ? AND image = ? AND truth IS NULL",
                (truth, request_id, image),
            )
            return done.rowcount == 1

    def count(self, model: ModelVersion, right: bool) -> None:
        """Count an answer with feedback; waits for the disk."""
        with self._transaction() as database:
            database.execute(_COUNT, (*model, int(right), int(not right)))

    def counts(self) -> list[tuple[ModelVersion, int, int]]:
        """Each version with its right and wrong answers, over all processes, by feedback; waits for the disk."""
        with self._transaction() as database:
            rows = database.execute("SELECT name, version, right, wrong FROM feedback ORDER BY name, version")
            return [(ModelVersion(name, version), right, wrong) for name, version, right, wrong in rows]

    def _work(self) -> None:
        is_failing = False
        while not self._stopped.wait(FLUSH_S) or self._new:
            if not self._new and time.monotonic() < self._swept + SWEEP_S:
                continue
            try:
                with self._transaction() as database:
                    self._write(database)
                is_failing = False
            except (sqlite3.Error, OSError, LockTimeoutError) as error:  # feedback must not break the service
                if not is_failing:
                    logger.warning("answers cannot be recorded for feedback: %s", error)
                is_failing = True
                if self._stopped.is_set():
                    return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._database is None or (self._folder is not None and _inode(self._folder) != self._inode):
                    self._reopen()
                assert self._database is not None
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                self._undo(error)
                raise
            finally:
                self._writing.clear()

    def _undo(self, error: BaseException) -> None:
        """Roll back, and leave what was to be written in the queue; a damaged file is removed, to be made again."""
        self._numbers.clear()  # some may have been rolled back
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.rollback()
        if self._folder is not None and _is_damaged(error):
            with suppress(OSError):
                (self._folder / FILE).unlink()
            if self._database is not None:
                self._database.close()
            self._database = None
        room = max(0, self._most - len(self._new))  # the oldest are given up
        self._new.extendleft(reversed(self._writing[len(self._writing) - room :] if room else []))

    def _reopen(self) -> None:
        """Open the file; where others removed it, put back what this process can still read of it."""
        before, self._database = self._database, _open(self._folder)
        self._inode = _inode(self._folder) if self._folder else None
        self._numbers.clear()
        if before is not None:
            logger.warning("the file of recorded answers was removed, and is made again")
            with suppress(sqlite3.Error), closing(before):
                _copy(before, self._database)

    def _write(self, database: sqlite3.Connection) -> None:
        """Write the queue into the table, and remove old answers."""
        rows = []
        while self._new:
            new = self._new.popleft()
            self._writing.append(new)
            number = self._number(database, new.model, new.labels)
            rows.append((new.request_id, new.image, number, new.class_id, new.tag, new.known, new.stored, new.at))
        if rows:
            database.executemany(_RECORD, rows)
            database.execute("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", (self._most,))
        if time.monotonic() >= self._swept + SWEEP_S:
            self._swept = time.monotonic()
            database.execute("DELETE FROM answers WHERE at < ?", (time.time() - LONGEST_S,))

    def _number(self, database: sqlite3.Connection, model: ModelVersion, labels: tuple[str, ...]) -> int:
        if (model, labels) not in self._numbers:
            row = (*model, json.dumps(labels))
            database.execute("INSERT OR IGNORE INTO models (name, version, labels) VALUES (?, ?, ?)", row)
            asked = "SELECT number FROM models WHERE name = ? AND version = ? AND labels = ?"
            (self._numbers[model, labels],) = database.execute(asked, row).fetchone()
        return self._numbers[model, labels]


def _open(shared: Path | None) -> sqlite3.Connection:
    """Open the database, and create its tables."""
    if shared is None:
        database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        database.executescript(_SCHEMA)
        return database
    private_directory(shared)
    database = sqlite3.connect(shared / FILE, timeout=5.0, check_same_thread=False, isolation_level=None)
    with locked(shared / f"{FILE}.lock"):  # all processes start at once
        # Processes are killed at any moment, so the file has to stay consistent; it need not reach the disk. No WAL:
        # its index is mapped into memory, and a process that uses it ends by SIGBUS where others cut it short.
        database.execute("PRAGMA journal_mode = TRUNCATE").close()
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    return database


def _inode(folder: Path) -> int | None:
    try:
        return (folder / FILE).stat().st_ino
    except OSError:
        return None


def _is_damaged(error: BaseException) -> bool:
    """Whether a file is no database any more, rather than locked, full or of another version."""
    codes = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB
    is_empty = isinstance(error, sqlite3.OperationalError) and "no such table" in str(error)
    return is_empty or getattr(error, "sqlite_errorcode", None) in codes


def _copy(before: sqlite3.Connection, database: sqlite3.Connection) -> None:
    """Copy all rows, unless another process has begun to fill the new file: all had the same one open before."""
    database.execute("BEGIN IMMEDIATE")
    try:
        if database.execute("SELECT count(*) FROM models").fetchone() == (0,):
            for table in ("models", "answers", "feedback"):
                rows = before.execute(f"SELECT * FROM {table}").fetchall()
                if rows:
                    marks = ", ".join("?" * len(rows[0]))
                    database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    finally:
        database.execute("COMMIT")
