"""Peak memory of a process and its children, watched from outside."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

EVERY_S = 0.5


class Footprint:
    """A context that watches a process's memory.

    Resident memory counts a page once for each process that shares it, and forked data-loader workers share most
    of theirs. So whenever it reaches a new peak, the proportional size (which divides shared pages) is recorded.

    Attributes:
        peak_bytes: peak so far, in bytes.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._process, self._highest = psutil.Process(pid), 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            resident = sum(_resident(one) for one in family)
            if resident > self._highest:
                self._highest = resident
                self.peak_bytes = max(self.peak_bytes, sum(_proportional(one) for one in family))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has ended
        return 0


def _proportional(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))  # Linux only
    except psutil.Error:
        return 0
