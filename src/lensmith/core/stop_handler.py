"""Handler of SIGTERM and Ctrl-C that ends a program by an exception, so that unfinished files are removed."""

import signal
from types import FrameType


class StopHandler:
    """Raises an exception for a signal, and remembers the signal: a library that is being imported may lose the former.

    Attributes:
        received: the last signal; None: there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt for SIGINT, and SystemExit with 128 plus the number for others."""
        self.received = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
