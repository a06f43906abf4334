"""The lock of a run folder: two processes that train one run would overwrite each other's checkpoints."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from lensmith.core.locks import LockTimeoutError, locked
from lensmith.errors import RunError

NAME, RANKS = ".lock", ".lock-ranks"
WAIT_S = 15.0
"""Seconds to wait: data-loader workers and ranks of a killed run hold its lock until they notice that it ended."""


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Lock a run folder during the block, and wait for ranks that an ended process has left behind.

    Raises:
        RunError: another process has trained the run for the last WAIT_S seconds.
    """
    with _locked(run / NAME):
        if (run / RANKS).exists():
            with locked_by_ranks(run):
                pass
        yield


def locked_by_ranks(run: Path) -> AbstractContextManager[None]:
    """Lock a run folder as the first of its ranks, which may outlive the process that started them."""
    return _locked(run / RANKS)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        with locked(path, WAIT_S):
            yield
    except LockTimeoutError:
        raise RunError(
            f"The run {path.parent} was to be trained by this process alone.",
            "Another one is training it.",
            "Let that one finish, or stop it first; with SIGTERM or Ctrl-C it saves.",
        ) from None
