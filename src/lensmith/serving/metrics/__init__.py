"""Observability of the service: metrics for Prometheus, and log lines."""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lensmith.core.files import private_directory

logger = logging.getLogger(__name__)

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder all processes share; processes that are started inherit it."""

_OLD_NAME = "prometheus_multiproc_dir"


def drop_foreign_folder() -> None:
    """Forget a folder that the environment names: it belongs to another program, whose counts would mix with ours."""
    for name in (SHARED_FOLDER, _OLD_NAME):
        if folder := os.environ.pop(name, ""):
            logger.warning("%s=%s is ignored: the service makes a folder of its own for its metrics", name, folder)


@contextmanager
def shared_metrics_folder() -> Iterator[None]:
    """Name a folder for the metrics of several processes in the environment, and make it where that is possible.

    Without room for the folder the service starts all the same; its processes try again every second.
    """
    # In memory where possible, as the files are mapped and written to with each request.
    candidates = [Path("/dev/shm")] if os.access("/dev/shm", os.W_OK) else []
    with suppress(OSError):
        candidates.append(Path(tempfile.gettempdir()))
    name = f"lensmith-metrics-{secrets.token_hex(4)}"
    folder = (candidates or [Path.cwd()])[0] / name
    for each in candidates:
        with suppress(OSError):
            private_directory(each / name)
            folder = each / name
            break
    os.environ[SHARED_FOLDER] = str(folder)
    try:
        yield
    finally:
        del os.environ[SHARED_FOLDER]
        shutil.rmtree(folder, ignore_errors=True)
