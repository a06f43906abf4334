"""Signals of the supervisor, noted to be handled between other events: SIGTERM, SIGINT and SIGHUP."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class SignalInbox:
    """Signals that have arrived.

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
        """Handle the signals during the block, and restore the older handlers after it."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {each: signal.signal(each, self._note) for each in numbers}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            self.readable.close()
            self._waker.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hangup = True
        else:
            self.stops += 1
        with suppress(OSError):
            self._waker.send(b"x")
