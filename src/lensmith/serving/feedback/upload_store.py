"""Uploads that are worth a label are kept in a folder: by one thread, and never beyond its bounds."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.feedback.storage import Upload, keep, trim

logger = logging.getLogger(__name__)

WAITING_BYTES = 32_000_000
"""Uploads that wait for the disk at most; others are not kept."""
MOST_UPLOADS = 100_000
"""In the folder, whatever their bytes: each costs a look now and then."""
LOOK_S = 60.0
"""Seconds after which a folder that was written to is looked at anew: other processes write, too."""
IDLE_LOOK_S = 3600.0
"""Seconds after which it is looked at in any case: uploads grow too old."""
STOP_S = 5.0
"""Seconds in which the last uploads have to be written when the service ends."""
DAY_S = 86_400.0


class UploadStore:
    """Keeps uploads.

    Args:
        folder: where; made if need be.
        settings: bounds of the folder.
        registry: for Prometheus.

    Raises:
        ServiceError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, settings: ServeSettings, registry: CollectorRegistry) -> None:
        self.folder = folder.absolute()
        self._most_bytes, self._longest_s = settings.keep_bytes, settings.keep_days * DAY_S
        self._kept = Counter(
            "lensmith_kept", "Uploads kept for labelling, by why they were.", ["reason"], registry=registry
        )
        self._dropped = Counter(
            "lensmith_kept_dropped",
            "Uploads that were to be kept and were not: the disk is too slow, full or gone.",
            registry=registry,
        )
        self._queue: queue.SimpleQueue[tuple[Upload, bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = self._held_bytes = self._held = self._new_bytes = 0
        self._looked = -IDLE_LOOK_S
        self._failing = False
        self._stopped = True
        self._thread: threading.Thread | None = None
        _require_writable(self.folder)

    def describe(self) -> str:
        """Where uploads are kept, and until when."""
        days, megabytes = self._longest_s / DAY_S, self._most_bytes / 1e6
        return f"uploads are kept in {self.folder} for {days:g} days, up to {megabytes:,.0f} MB; see docs/feedback.md"

    def begin(self) -> None:
        """Write from now on what is offered."""
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, for a moment at most."""
        with self._lock:
            self._stopped = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(STOP_S)

    def offer(self, upload: Upload, encoded: bytes) -> bool:
        """Have an upload kept, soon; False where too much waits for the disk. Never waits itself."""
        with self._lock:
            if self._stopped or (self._waiting_bytes and self._waiting_bytes + len(encoded) > WAITING_BYTES):
                self._dropped.inc()
                return False
            self._waiting_bytes += len(encoded)
        self._queue.put((upload, encoded))
        return True

    def _work(self) -> None:
        while True:
            self._look()
            try:
                job = self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if job is None:
                return
            upload, encoded = job
            self._write(upload, encoded)
            with self._lock:
                self._waiting_bytes -= len(encoded)

    def _write(self, upload: Upload, encoded: bytes) -> None:
        try:
            written = keep(self.folder, upload, encoded)
        except Exception as error:  # an observer does not end what it observes
            self._dropped.inc()
            if not self._failing:
                logger.warning("uploads cannot be kept in %s, and are not until they can: %s", self.folder, error)
            self._failing = True
            return
        if self._failing:
            logger.info("uploads can be kept in %s again", self.folder)
        self._failing = False
        if written:
            self._kept.labels(upload.reason).inc()
            self._held += 1
            self._held_bytes += written
            self._new_bytes += written

    def _look(self) -> None:
        """Make room, where it may be needed: this process has filled it, or others may have."""
        since = time.monotonic() - self._looked
        beyond = self._held_bytes > self._most_bytes or self._held > MOST_UPLOADS
        if not beyond and since < (LOOK_S if self._new_bytes else IDLE_LOOK_S):
            return
        # To a little below the bounds, else every upload would bring the next look.
        most = (
            (self._most_bytes, MOST_UPLOADS) if not beyond else (int(0.95 * self._most_bytes), MOST_UPLOADS * 19 // 20)
        )
        try:
            self._held_bytes, self._held = trim(self.folder, *most, time.time() - self._longest_s)
        except Exception:
            logger.exception("old uploads could not be removed from %s", self.folder)
        self._looked, self._new_bytes = time.monotonic(), 0


def _require_writable(folder: Path) -> None:
    """Refuse a folder that nothing can be kept in.

    Raises:
        ServiceError: as said.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600))
        probe.unlink()
    except OSError as error:
        raise ServiceError(
            f"A folder that uploads can be kept in was expected at {folder}.",
            f"The system said: {error.strerror}.",
            "Name another with --keep, or give this service the rights to it.",
        ) from error
