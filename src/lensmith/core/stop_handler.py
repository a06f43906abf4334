"""Handler of SIGTERM and Ctrl-C that ends a program by an exception, so that unfinished files are removed."""

import contextlib
import signal
from types import FrameType
from typing import Any, Self


class StopHandler:
    """Raises an exception for a signal, and remembers the signal: a library that is being imported may lose the former.

    As a context manager it handles SIGTERM, and SIGINT where nobody else does, until its end puts the older ones back.

    Attributes:
        received: the last signal; None: there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not in the main thread
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt for SIGINT, and SystemExit with 128 plus the number for others."""
        self.received = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
