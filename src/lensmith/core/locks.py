"""File locks between processes; the system releases a lock when its process ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LockTimeoutError(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, timeout_s: float | None = None, mode: int | None = None) -> Iterator[None]:
    """Hold the lock file `path` during the block.

    Args:
        path: lock file, made if it is missing; its folder must exist, since a lock must not make one.
        timeout_s: seconds to wait for another process; 0 tries once, None waits without limit.
        mode: permission bits of a file that is made; None: what the umask allows, so that a group may share it.

    Raises:
        LockTimeoutError: another process still holds it.
        FileNotFoundError: the folder is missing.
        OSError: the folder takes no lock files, such as one on a read-only medium.
    """
    from filelock import FileLock, Timeout

    path.parent.stat()
    lock = FileLock(path) if mode is None else FileLock(path, mode=mode)
    try:
        lock.acquire(timeout=-1 if timeout_s is None else timeout_s)
    except Timeout:
        raise LockTimeoutError(f"another process holds {path}") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file `path` now.

    Raises:
        FileNotFoundError: the folder is missing.
    """
    try:
        with locked(path, timeout_s=0):
            return False
    except LockTimeoutError:
        return True
