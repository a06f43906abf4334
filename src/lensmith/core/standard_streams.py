"""Standard streams that never end a program: closed ones are opened, and a standard error that is full loses its lines.

What a verb prints to standard error tells people how far it is; a training of hours must not end because the disk of
its log is full, or because the terminal or pipe is gone.
"""

import contextlib
import os
import sys
from typing import Any, TextIO


def open_closed_streams() -> None:
    """Open those of the three standard streams that are closed: a socket or a file would take their numbers.

    What libraries print would then go to clients, or into that file.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            if getattr(sys, name) is None:
                setattr(sys, name, open(descriptor, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115


def tolerate_full_stderr() -> None:
    """From now on lose what standard error does not take, instead of raising an exception."""
    if sys.stderr is not None and not isinstance(sys.stderr, _TolerantStream):
        sys.stderr = _TolerantStream(sys.stderr)


class _TolerantStream:
    """A text stream whose `write` and `flush` never fail; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()
