"""SQLite file for MLflow: created atomically, by one process at a time.

MLflow creates its tables one after the other, which takes seconds. A process that is killed meanwhile, or finds the
disk full, would leave a file that every later one refuses, so the file is created in another folder and moved.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lensmith.core.files import staging_directory
from lensmith.core.locks import LockTimeoutError, locked

CREATE_S = 120.0
"""Longest wait for another process that creates the tables, in seconds; it takes a few."""


@contextmanager
def ready(file: Path, artifacts: str) -> Iterator[None]:
    """Create a file with MLflow's tables where it is missing; no other process does so during the block.

    Args:
        file: path of the database.
        artifacts: URI under which MLflow's own experiment, Default, has its files.

    Raises:
        Exception: SQLAlchemy's error where the file cannot be created.
    """
    with ExitStack() as stack:
        with suppress(OSError, LockTimeoutError):  # such as a registry on a read-only medium, which takes no lock
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(file.with_name(f".{file.name}.lock"), CREATE_S))
        if not file.exists() or file.stat().st_size == 0:
            _create(file, artifacts)
        yield


def _create(file: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for abandoned in file.parent.glob(f".{file.name}-*"):  # by a process that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    with staging_directory(file) as staging:  # never the same name twice, since MLflow caches stores by name
        SqlAlchemyStore(f"sqlite:///{staging / file.name}", artifacts).engine.dispose()
        (staging / file.name).replace(file)
