"""One process trains a run at a time: two would take turns in overwriting each other's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lensmith.errors import RunError

NAME, RANKS = ".lock", ".lock-ranks"
WAIT_S = 15.0
"""Data workers of a killed run, and its other ranks, hold it until they notice that it is gone, which takes seconds."""


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold a run folder; the system lets go of it when the process ends, however it ends.

    Raises:
        RunError: another process has held it for WAIT_S seconds, or ranks that one has left behind.
    """
    with _locked(run, NAME):
        if (run / RANKS).exists():
            with held_by_ranks(run):
                pass
        yield


@contextmanager
def held_by_ranks(run: Path) -> Iterator[None]:
    """Hold a run folder as the first of the ranks that a process holding it has started, and which may outlive it."""
    with _locked(run, RANKS):
        yield


@contextmanager
def _locked(run: Path, name: str) -> Iterator[None]:
    lock = FileLock(run / name)
    try:
        lock.acquire(timeout=WAIT_S)
    except Timeout:
        raise RunError(
            f"The run {run} was to be trained by this process alone.",
            "Another one is training it.",
            "Let that one finish, or stop it first; with SIGTERM or Ctrl-C it saves.",
        ) from None
    try:
        yield
    finally:
        lock.release()
