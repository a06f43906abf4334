"""Signals: Ctrl-C, SIGTERM and a closed terminal (SIGHUP) ask a run to stop at its next step boundary.

A second one ends it at once. Under `nohup`, which ignores SIGHUP, it stays ignored.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from lensmith.core.stop_handler import StopHandler
from lensmith.errors import RunError

HANGUP = getattr(signal, "SIGHUP", None)
EXIT_CODES: dict[signal.Signals, int] = {signal.SIGINT: 130, signal.SIGTERM: 75, **({HANGUP: 129} if HANGUP else {})}
"""Signal → exit code; 75 is EX_TEMPFAIL: the run can be resumed elsewhere."""


def handled_signals() -> list[signal.Signals]:
    """The signals that stop a run: those of `EXIT_CODES`, without a SIGHUP that is ignored."""
    return [each for each in EXIT_CODES if each != HANGUP or signal.getsignal(each) is not signal.SIG_IGN]


def end_on_signals() -> None:
    """In a rank's process: let signals end it at once and silently, until the loop handles them."""
    for number in handled_signals():
        signal.signal(number, signal.SIG_DFL)
    unblock_signals()


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block the signals of `EXIT_CODES` in this thread during the block, where the system can (Windows cannot)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Let the signals of `EXIT_CODES` reach this thread again; see `blocked_signals`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)


class RunInterruptedError(RunError):
    """A signal asked the run to stop, and it is saved; `exit_code` depends on the signal."""

    @classmethod
    def by(cls, number: signal.Signals, expected: str, arrived: str, remedy: str) -> Self:
        """The error for a signal, with its exit code."""
        error = cls(expected, arrived, remedy)
        error.exit_code = EXIT_CODES[number]
        return error


def signal_of(error: BaseException) -> signal.Signals | None:
    """The signal for which the training, `core.stop_handler` or Python raised an error; None: it is another error."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, RunInterruptedError):
        return next(number for number, code in EXIT_CODES.items() if code == error.exit_code)
    if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
        return signal.SIGTERM
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, StopHandler) and handler.received is not None:  # of which a library made another exception
        return signal.Signals(handler.received)
    return None


class Interruption:
    """Handles these signals during a block; `received` is the one that asked the run to stop, or None."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._terminals = [number for number in (1, 2) if os.isatty(number)]

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids it
            self._before = {number: signal.signal(number, self._receive) for number in handled_signals()}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if number == HANGUP and self._terminals:  # it is gone: a progress bar written to it would end the run unsaved
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
