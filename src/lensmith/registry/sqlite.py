"""A SQLite file for MLflow: made whole or not at all, by one process at a time.

MLflow makes its tables one after the other, which takes seconds. One that was killed meanwhile, or found the disk full,
would leave a file that every later one refuses: it is made beside its place and renamed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAKING_S = 120.0
"""Seconds to wait for another process that makes the tables of a file; it takes a few."""


@contextmanager
def ready(file: Path, artifacts: str) -> Iterator[None]:
    """Make a file with MLflow's tables where there is none, and let no other process do so meanwhile.

    Args:
        file: the database.
        artifacts: URI under which MLflow's own experiment, Default, has its files.

    Raises:
        Exception: what SQLAlchemy says where no file can be made.
    """
    from filelock import FileLock

    lock = FileLock(file.with_name(f".{file.name}.lock"), timeout=MAKING_S)
    with suppress(OSError):  # a registry that is only read, from a medium that takes no lock
        file.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()
        lock.acquire()
    try:
        if not file.exists() or file.stat().st_size == 0:
            _make(file, artifacts)
        yield
    finally:
        lock.release()


def _make(file: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in file.parent.glob(f".{file.name}.*.partial*"):  # by one that was killed: nobody else is at it now
        left.unlink(missing_ok=True)
    # Never the same name twice: MLflow keeps what it has opened by name.
    partial = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        made = SqlAlchemyStore(f"sqlite:///{partial}", artifacts)
        made.engine.dispose()
        partial.replace(file)
    except BaseException:
        for left in partial.parent.glob(f"{partial.name}*"):
            left.unlink(missing_ok=True)
        raise
