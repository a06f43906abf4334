"""Logging: lines for people, or one JSON object each. A log that cannot be written never delays a request."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, WatchedFileHandler
from queue import Full, Queue

from lensmith.config import ServeSettings
from lensmith.imaging.silence import silence_pillow

LOGGERS = ("lensmith", "uvicorn", "asyncio")
MAX_QUEUED = 10_000
"""Lines that wait to be written; with a full disk or a stalled pipe, later ones are dropped."""
FLUSH_S = 2.0
"""Seconds in which the last lines must be written at the end."""
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


class _BoundedQueueHandler(QueueHandler):
    """Leaves lines to a thread, and drops them where too many wait."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # the thread formats it, with its traceback

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(Full):
            self.queue.put_nowait(record)


@contextmanager
def logging_as(settings: ServeSettings) -> Iterator[None]:
    """Write the service's log as the settings say, until the block ends."""
    target: logging.Handler
    # Watched: what rotates logs may move the file away.
    target = WatchedFileHandler(settings.log_file) if settings.log_file else logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    target.setFormatter(JsonLines() if settings.log_format == "json" else text)
    target.handleError = lambda record: None  # type: ignore[method-assign]  # there is nowhere to report it
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


def _write(queue: Queue[logging.LogRecord | None], target: logging.Handler) -> None:
    while (record := queue.get()) is not None:
        with suppress(Exception):  # as when the file's folder was moved away: later lines may well be written again
            target.handle(record)
