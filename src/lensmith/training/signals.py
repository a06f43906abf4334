"""Signals: Ctrl-C and SIGTERM ask a run to stop at its next step boundary; a second one ends it at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from lensmith.errors import RunError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Signal → exit code; 75 is EX_TEMPFAIL: the run can be resumed elsewhere."""


def end_on_signals() -> None:
    """In a rank's process: let Ctrl-C and SIGTERM end it at once and silently, until the loop handles them."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)


class RunInterruptedError(RunError):
    """A signal asked the run to stop, and it is saved; `exit_code` depends on the signal."""


class Interruption:
    """Handles Ctrl-C and SIGTERM during a block; `received` is the signal that asked the run to stop, or None."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids it
            self._before = {number: signal.signal(number, self._receive) for number in EXIT_CODES}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
