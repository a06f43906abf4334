"""Upload store: uploads stored for labelling, by one background thread, within limits of bytes, number and age."""

import logging
import os
import queue
import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.feedback.storage import Upload, store, trim

logger = logging.getLogger(__name__)

QUEUED_BYTES = 32_000_000
"""Largest size of the queue for the disk; further uploads are dropped."""
MOST_UPLOADS = 100_000
"""Largest number of uploads in the folder: each costs time at every scan."""
SCAN_S = 60.0
"""Seconds after which a folder that was written to is scanned again: other processes also write."""
IDLE_SCAN_S = 3600.0
"""Seconds after which any folder is scanned: uploads reach their largest age."""
STOP_S = 5.0
"""Seconds in which the last uploads are written when the service ends."""
DAY_S = 86_400.0


class UploadStore:
    """Writes uploads to a folder, which is made where it is missing, without delaying requests.

    Raises:
        ServiceError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, settings: ServeSettings, registry: CollectorRegistry) -> None:
        self.folder = folder.absolute()
        self._most_bytes, self._longest_s = settings.keep_bytes, settings.keep_days * DAY_S
        self._stored = Counter(
            "lensmith_kept", "Uploads stored for labelling, by reason.", ["reason"], registry=registry
        )
        self._dropped = Counter(
            "lensmith_kept_dropped",
            "Uploads that could not be stored for labelling: the disk is too slow, full or gone.",
            registry=registry,
        )
        self._queue: queue.SimpleQueue[tuple[Upload, bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_bytes = self._folder_bytes = self._folder_uploads = self._new_bytes = 0
        self._scanned = -IDLE_SCAN_S
        self._is_failing = False
        self._stopped = True
        self._thread: threading.Thread | None = None
        _require_writable(self.folder)

    def begin(self) -> None:
        """Start the thread that writes, and log folder and limits."""
        days, megabytes = self._longest_s / DAY_S, f"{self._most_bytes / 1e6:,.0f}"
        message = "uploads are stored in %s for %g days, up to %s MB; see docs/feedback.md"
        logger.info(message, self.folder, days, megabytes)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="upload-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, within STOP_S."""
        with self._lock:
            self._stopped = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(STOP_S)

    def offer(self, upload: Upload, encoded: bytes) -> bool:
        """Queue an upload; False where the queue is full. Never blocks."""
        with self._lock:
            if self._stopped or (self._queued_bytes and self._queued_bytes + len(encoded) > QUEUED_BYTES):
                self._dropped.inc()
                return False
            self._queued_bytes += len(encoded)
        self._queue.put((upload, encoded))
        return True

    def _work(self) -> None:
        while True:
            self._trim_if_due()
            try:
                job = self._queue.get(timeout=SCAN_S)
            except queue.Empty:
                continue
            if job is None:
                return
            upload, encoded = job
            self._write(upload, encoded)
            with self._lock:
                self._queued_bytes -= len(encoded)

    def _write(self, upload: Upload, encoded: bytes) -> None:
        try:
            written = store(self.folder, upload, encoded)
        except Exception as error:  # feedback must not break the service
            self._dropped.inc()
            if not self._is_failing:
                logger.warning("uploads cannot be stored in %s for now: %s", self.folder, error)
            self._is_failing = True
            return
        if self._is_failing:
            logger.info("uploads can be stored in %s again", self.folder)
        self._is_failing = False
        if written:
            self._stored.labels(upload.reason).inc()
            self._folder_uploads += 1
            self._folder_bytes += written
            self._new_bytes += written

    def _trim_if_due(self) -> None:
        """Remove old uploads where this process has reached a limit, or other processes may have."""
        since = time.monotonic() - self._scanned
        is_over = self._folder_bytes > self._most_bytes or self._folder_uploads > MOST_UPLOADS
        if not is_over and since < (SCAN_S if self._new_bytes else IDLE_SCAN_S):
            return
        # To a little below the limits, else every further upload would cause a scan.
        percent = 95 if is_over else 100
        most_bytes, most_uploads = self._most_bytes * percent // 100, MOST_UPLOADS * percent // 100
        try:
            oldest = time.time() - self._longest_s
            self._folder_bytes, self._folder_uploads = trim(self.folder, most_bytes, most_uploads, oldest)
        except Exception:
            logger.exception("old uploads could not be removed from %s", self.folder)
        self._scanned, self._new_bytes = time.monotonic(), 0


def _require_writable(folder: Path) -> None:
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600))
        probe.unlink()
    except OSError as error:
        raise ServiceError(
            f"A folder that uploads can be stored in was expected at {folder}.",
            f"The system said: {error.strerror}.",
            "Name another with --keep, or give this service the rights to it.",
        ) from error
