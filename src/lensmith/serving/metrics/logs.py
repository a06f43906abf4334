"""Logging: lines for people, or one JSON object each. A log that cannot be written never delays a request."""

import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from logging.handlers import QueueHandler, WatchedFileHandler
from pathlib import Path
from queue import Full, Queue

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.imaging.silence import silence_pillow

LOGGERS = ("lensmith", "uvicorn", "asyncio")
MAX_QUEUED = 10_000
"""Lines that wait to be written; with a full disk or a stalled pipe, later ones are dropped."""
FLUSH_S = 2.0
"""Seconds in which the last lines must be written at the end."""
FOLDER_S = 3.0
"""Seconds until a folder of the log that is gone is made again: whoever moves logs may put it back at once."""
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
"""Attributes of every record; the others came with `extra`."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields of `extra`, and the traceback of a fault."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in STANDARD},
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class DroppedLines:
    """Number of log lines of this process that could not be written; it only grows, and threads may share it."""

    def __init__(self) -> None:
        self._next = count(1)
        self.total = 0

    def add(self) -> None:
        """Count one more."""
        self.total = next(self._next)


dropped_lines = DroppedLines()


class _LogFile(WatchedFileHandler):
    """A log file that may be moved away, as by log rotation, and may be unwritable for a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True)
        self._lost = False  # the present line
        self._failing_since: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._lost = False
        since = self._failing_since
        try:
            if since is not None and time.monotonic() > since + FOLDER_S:
                Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
            super().emit(record)
        except Exception:  # from opening the file; errors of writing to it arrive in handleError at once
            self.handleError(record)
        if since is not None and not self._lost:
            self._failing_since = None
            _print(f"lensmith: the log is written to {self.baseFilename} again")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging
        """Count a line that was lost, and report the first one on standard error."""
        self._lost = True
        dropped_lines.add()
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            _print(f"lensmith: the log cannot be written to {self.baseFilename}: {sys.exception()}")


class _Stream(logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error, which may be full, closed or stalled."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging
        """Count a line that was lost; there is nowhere to report it."""
        dropped_lines.add()


class _BoundedQueueHandler(QueueHandler):
    """Leaves lines to a thread, and drops them where too many wait."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # the thread formats it, with its traceback

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except Full:
            dropped_lines.add()


@contextmanager
def logging_as(settings: ServeSettings) -> Iterator[None]:
    """Write the service's log as the settings say, until the block ends."""
    target: logging.Handler = _LogFile(settings.log_file) if settings.log_file else _Stream(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    target.setFormatter(JsonLines() if settings.log_format == "json" else text)
    queue: Queue[logging.LogRecord | None] = Queue(MAX_QUEUED)
    front = _BoundedQueueHandler(queue)
    writer = threading.Thread(target=_write, args=(queue, target), name="log", daemon=True)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(front)
    logging.getLogger("lensmith").setLevel(logging.INFO)
    # Anybody can send what these complain about, and each would write to standard error by itself.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    silence_pillow()
    writer.start()
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(front)
        with suppress(Full):  # a log that stalls does not delay the end either
            queue.put(None, timeout=FLUSH_S)
            writer.join(FLUSH_S)


def require_log_file(settings: ServeSettings) -> None:
    """Refuse to start with a log file that cannot be opened.

    Raises:
        ServiceError: its folder is missing, it is a folder itself, or there is no right or room to write it.
    """
    path = settings.log_file
    if path is None:
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0), 0o666))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a named pipe that nobody reads yet
            return
        raise ServiceError(
            f"A log file that can be written was expected at {path}.",
            f"The system reported: {error.strerror}.",
            "Make its folder, or name another file with --log-file.",
        ) from error


def _print(message: str) -> None:
    with suppress(Exception):  # standard error may be full or closed as well
        print(message, file=sys.stderr, flush=True)


def _write(queue: Queue[logging.LogRecord | None], target: logging.Handler) -> None:
    while (record := queue.get()) is not None:
        with suppress(Exception):  # as when the file's folder was moved away: later lines may well be written again
            target.handle(record)
