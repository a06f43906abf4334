"""What was answered lately, so that somebody can say later whether it was right: identifiers, versions, class numbers.

All processes of a service share one SQLite file in their folder of measurements, which ends with the service; a process
alone keeps it in memory. A request only appends to a queue; a thread writes what has gathered a few times a second.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lensmith.serving.execution.loaded_model import ModelVersion

logger = logging.getLogger(__name__)

FLUSH_S = 0.2
"""Seconds between two writings; so long it takes at most until other processes know of an answer."""
LONGEST_S = 86_400.0
"""Seconds after which an answer is forgotten, however few there are."""
SWEEP_S = 60.0
"""Seconds between two looks for those."""
FILE = "answers.sqlite"
Z = 1.959964
"""Of a standard normal distribution 95 % lie within ± this."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, labels TEXT NOT NULL,
    UNIQUE (name, version, labels)
);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY, request_id TEXT NOT NULL, image INTEGER NOT NULL, model INTEGER NOT NULL,
    class_id INTEGER NOT NULL, tag TEXT NOT NULL, kept INTEGER NOT NULL, at REAL NOT NULL, truth TEXT,
    UNIQUE (request_id, image)
);
CREATE TABLE IF NOT EXISTS heard (
    name TEXT NOT NULL, version TEXT NOT NULL, right INTEGER NOT NULL, wrong INTEGER NOT NULL,
    PRIMARY KEY (name, version)
);
"""
_REMEMBER = """
INSERT INTO answers (request_id, image, model, class_id, tag, kept, at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (request_id, image) DO UPDATE SET
    model = excluded.model, class_id = excluded.class_id, tag = excluded.tag, kept = excluded.kept, at = excluded.at
WHERE truth IS NULL
"""
_FIND = """
SELECT name, version, labels, class_id, tag, kept, truth
FROM answers JOIN models ON answers.model = models.number
WHERE request_id = ? AND image = ? AND at >= ?
"""
_HEARD = """
INSERT INTO heard (name, version, right, wrong) VALUES (?, ?, ?, ?)
ON CONFLICT (name, version) DO UPDATE SET right = right + excluded.right, wrong = wrong + excluded.wrong
"""


@dataclass(frozen=True)
class RecordedAnswer:
    """An answer that was given.

    Attributes:
        model: what answered.
        labels: of that model.
        label: what it answered.
        tag: what whoever made the request noted with it.
        kept: whether the upload was to be kept.
        truth: its true label, where that has been said.
        remembered: False where only its kept upload tells of it.
    """

    model: ModelVersion
    labels: tuple[str, ...]
    label: str
    tag: str
    kept: bool
    truth: str | None
    remembered: bool = True


@dataclass(frozen=True)
class FeedbackAccuracy:
    """How often one version was right, of the answers whose true label was said.

    Attributes:
        model: the version.
        heard: answers whose true label was said.
        right: those that it agreed with.
    """

    model: ModelVersion
    heard: int
    right: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % score interval of the accuracy (Wilson 1927, "Probable inference, the law of succession")."""
        n, p = self.heard, self.right / self.heard
        middle, spread = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + Z * Z / n)), min(1.0, (middle + spread) / (1 + Z * Z / n))


class _NewAnswer(NamedTuple):
    """One answer on its way to the table."""

    request_id: str
    image: int
    model: ModelVersion
    labels: tuple[str, ...]
    class_id: int
    tag: str
    kept: bool
    at: float


class AnswerStore:
    """The last answers of a service.

    Args:
        most: how many are remembered; 0: none.
        shared: a folder that all processes of the service share; None: this is the only one.
    """

    def __init__(self, most: int, shared: Path | None = None) -> None:
        self._most, self._folder = most, shared
        self.shared = shared is not None
        self._new: deque[_NewAnswer] = deque(maxlen=most)
        self._numbers: dict[tuple[ModelVersion, tuple[str, ...]], int] = {}
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._swept = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Write from now on what is remembered."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the last of it, and close the file."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None
            self._numbers.clear()

    def remember(
        self, request_id: str, image: int, model: ModelVersion, labels: tuple[str, ...], class_id: int, tag: str,
        kept: bool,
    ) -> None:  # fmt: skip
        """Note an answer; costs a microsecond."""
        self._new.append(_NewAnswer(request_id, image, model, labels, class_id, tag, kept, time.time()))

    def find(self, request_id: str, image: int) -> RecordedAnswer | None:
        """An answer that is not yet forgotten; waits for the disk."""
        with self._transaction() as database:
            self._write(database)
            row = database.execute(_FIND, (request_id, image, time.time() - LONGEST_S)).fetchone()
        if row is None:
            return None
        name, version, labels, class_id, tag, kept, truth = row
        labels = tuple(json.loads(labels))
        return RecordedAnswer(ModelVersion(name, version), labels, labels[class_id], tag, bool(kept), truth)

    def settle(self, request_id: str, image: int, truth: str) -> bool:
        """Write down the true label of an answer; False where there is one already. Waits for the disk."""
        with self._transaction() as database:
            done = database.execute(
                "UPDATE answers SET truth = ? WHERE request_id = ? AND image = ? AND truth IS NULL",
                (truth, request_id, image),
            )
            return done.rowcount == 1

    def count(self, model: ModelVersion, right: bool) -> None:
        """Count an answer whose true label was said; waits for the disk."""
        with self._transaction() as database:
            database.execute(_HEARD, (*model, int(right), int(not right)))

    def accuracy(self) -> list[FeedbackAccuracy]:
        """Of each version, over all processes, since the service started; waits for the disk."""
        with self._transaction() as database:
            rows = database.execute("SELECT name, version, right, wrong FROM heard ORDER BY name, version").fetchall()
        return [
            FeedbackAccuracy(ModelVersion(name, version), right + wrong, right) for name, version, right, wrong in rows
        ]

    def _work(self) -> None:
        told = False
        while not self._stopped.wait(FLUSH_S) or self._new:
            if not self._new and time.monotonic() < self._swept + SWEEP_S:
                continue
            try:
                with self._transaction() as database:
                    self._write(database)
                told = False
            except sqlite3.Error as error:  # an observer does not end what it observes
                if not told:
                    logger.warning("answers cannot be remembered for feedback: %s", error)
                told = True
                if self._stopped.is_set():
                    return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._database is None:
                self._database = _open(self._folder)
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                self._database.rollback()
                self._numbers.clear()  # some may have been taken back
                raise

    def _write(self, database: sqlite3.Connection) -> None:
        """Put what has gathered into the table, and forget what is too old."""
        rows = []
        while self._new:
            new = self._new.popleft()
            number = self._number(database, new.model, new.labels)
            rows.append((new.request_id, new.image, number, new.class_id, new.tag, new.kept, new.at))
        if rows:
            database.executemany(_REMEMBER, rows)
            database.execute("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", (self._most,))
        if time.monotonic() >= self._swept + SWEEP_S:
            self._swept = time.monotonic()
            database.execute("DELETE FROM answers WHERE at < ?", (time.time() - LONGEST_S,))

    def _number(self, database: sqlite3.Connection, model: ModelVersion, labels: tuple[str, ...]) -> int:
        number = self._numbers.get((model, labels))
        if number is None:
            row = (*model, json.dumps(labels))
            database.execute("INSERT OR IGNORE INTO models (name, version, labels) VALUES (?, ?, ?)", row)
            found = database.execute(
                "SELECT number FROM models WHERE name = ? AND version = ? AND labels = ?", row
            ).fetchone()
            number = self._numbers[model, labels] = int(found[0])
        return number


def _open(shared: Path | None) -> sqlite3.Connection:
    """The database, with its tables."""
    if shared is None:
        database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        database.executescript(_SCHEMA)
        return database
    database = sqlite3.connect(shared / FILE, timeout=5.0, check_same_thread=False, isolation_level=None)
    for last in (False,) * 50 + (True,):
        try:
            # Processes are killed at any moment, and the file has to stay whole; that it reaches a disk is not needed.
            with closing(database.execute("PRAGMA journal_mode = WAL")):
                database.execute("PRAGMA synchronous = OFF")
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            return database
        except sqlite3.OperationalError:  # all processes of a service start at once, and each wants it for itself
            if last:
                raise
            if database.in_transaction:
                database.rollback()
            time.sleep(0.05)
    raise AssertionError("the last try returns or raises")
