"""Observability of the service: metrics for Prometheus, and log lines."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder all processes share; prometheus_client reads it on import."""


@contextmanager
def shared_metrics_folder() -> Iterator[None]:
    """Make a folder for the metrics of several processes, and name it in the environment."""
    # In memory where possible: these files are mapped, and a process that writes to a full disk that way is ended.
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="lensmith-metrics-", dir=memory if os.access(memory, os.W_OK) else None, ignore_cleanup_errors=True
    ) as folder:
        os.environ[SHARED_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_FOLDER]
