"""Signals of the service: noted by the supervisor, kept from workers that start, harmless before the service is ready.

SIGHUP reloads, SIGTERM and SIGINT stop, SIGUSR1 and SIGUSR2 do nothing.
"""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from lensmith.core.stop_handler import StopHandler

SAME_SIGNAL_S = 0.5
"""Seconds by which a signal to all processes may reach the supervisor later than a worker."""
_HANGUP = getattr(signal, "SIGHUP", None)
_IGNORED = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class EarlySignals:
    """Signals that arrive while the service starts.

    SIGHUP waits, as bundle and keys may have been read already. A stop ends the start, and is not forgotten where its
    exception is lost in a library that is being imported.
    """

    def __init__(self) -> None:
        self._hangup = False
        self._stop: int | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals during the block, and restore the older handlers after it."""
        handlers: dict[int, Any] = dict.fromkeys(_IGNORED, signal.SIG_IGN)
        handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._note_stop)
        if _HANGUP is not None:
            handlers[_HANGUP] = self._note_hangup
        before: dict[int, Any] = {}
        with suppress(ValueError):  # not in the main thread
            for each, handler in handlers.items():
                before[each] = signal.signal(each, handler)
        try:
            for handler in before.values():
                if isinstance(handler, StopHandler) and handler.received is not None:
                    self._stop = handler.received
            self.require_no_stop()
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def take_hangup(self) -> bool:
        """Whether a SIGHUP waits to be answered; it does no longer."""
        arrived, self._hangup = self._hangup, False
        return arrived

    @property
    def is_stopping(self) -> bool:
        """Whether a signal asked the start to end."""
        return self._stop is not None

    def require_no_stop(self) -> None:
        """End the start where a signal asked for that.

        Raises:
            SystemExit: 143 after SIGTERM, 130 after SIGINT.
        """
        if self._stop is not None:
            raise SystemExit(128 + self._stop)

    def _note_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hangup = True

    def _note_stop(self, number: int, _frame: FrameType | None) -> None:
        self._stop = number
        self.require_no_stop()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Start a process in the block with SIGHUP and SIGINT blocked, until it calls `ignore_terminal`."""
    blocked = {each for each in (_HANGUP, signal.SIGINT) if each is not None}
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, which unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal() -> None:
    """In a worker: ignore what a terminal sends to every process, as the supervisor handles it; then unblock it."""
    ignored = {each for each in (_HANGUP, signal.SIGINT, *_IGNORED) if each is not None}
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)


class SignalInbox:
    """SIGTERM, SIGINT and SIGHUP that have arrived, noted to be handled between other events.

    Attributes:
        stops: number of SIGTERM and SIGINT.
        hangup: whether SIGHUP arrived since this was last reset.
        readable: socket that becomes readable with each signal.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.hangup = False
        self.readable, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals during the block, and restore the older handlers after it.

        A stop that `EarlySignals` noted counts, too: its exception may have been lost where Python cleans up.
        """
        numbers = [each for each in (signal.SIGTERM, signal.SIGINT, _HANGUP) if each is not None]
        before = {each: signal.signal(each, self._note) for each in numbers}
        early = getattr(before[signal.SIGTERM], "__self__", None)
        if isinstance(early, EarlySignals) and early.is_stopping:
            self.stops += 1
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            self.readable.close()
            self._waker.close()

    def is_stopping(self, exit_code: int | None) -> bool:
        """Whether the service stops; waits a moment where a worker was ended by a signal to stop.

        Such a signal may have been sent to all processes at once, and reach this one later.
        """
        end = time.monotonic() + SAME_SIGNAL_S
        while exit_code in (-signal.SIGTERM, -signal.SIGINT) and not self.stops and time.monotonic() < end:
            time.sleep(0.01)
        return self.stops > 0

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == _HANGUP:
            self.hangup = True
        else:
            self.stops += 1
        with suppress(OSError):
            self._waker.send(b"x")
