"""The side process of a training: sends what it tells, `python -m lensmith.tracking.uploader RUN`.

It is told the tracking URI by one line on its standard input, and that the training is over by the end of it, which
comes too when that process is killed. It gives way to everything else on the machine, and imports MLflow late.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from lensmith.config.values import without_password
from lensmith.errors import LensmithError
from lensmith.tracking.run_reader import RunReader
from lensmith.tracking.state import NAME, TrackingState, sending_lock

EVERY_S = 5.0
"""Seconds between two looks at what has happened; before the first, so that a training begins undisturbed."""

MAX_PAUSE_S = 60.0
"""Seconds between two attempts at most, where the tracking server is away."""

GRACE_S = 20.0
"""Seconds after the end in which it is tried again."""


def main(run: Path, uri: str, over: threading.Event) -> bool:
    """Send a run until its training is over, then what other runs beside it have left; whether all has arrived.

    Args:
        run: its folder, with its tracking.json.
        uri: MLflow's tracking URI.
        over: set when the training is.
    """
    ends_at: float | None = None
    with suppress(OSError):  # the folder of a run that never began is removed
        while True:
            with sending_lock(
                run, EVERY_S
            ) as mine:  # the process that sent it before it was resumed may still be at it
                if mine:
                    if follow(run, uri, over):
                        break
                    return False
            if over.is_set():
                ends_at = ends_at or time.monotonic() + GRACE_S
                if time.monotonic() > ends_at:
                    return False
        for other in left_behind(run.parent, uri):
            send_all(other, uri)
        return True
    return False


def follow(run: Path, uri: str, over: threading.Event) -> bool:
    """Send a run that this process holds until its training is over; whether all of it has arrived.

    Raises:
        OSError: its folder is gone.
    """
    from lensmith.tracking.sender import Sender

    sender: Sender | None = None
    pause_s, ends_at = EVERY_S, float("inf")
    while True:
        ended = over.wait(pause_s)
        if ended and ends_at == float("inf"):
            ends_at = time.monotonic() + GRACE_S
        state = TrackingState.read(run)
        if state is None:  # removed
            return False
        try:
            sender = sender or Sender(run, state, uri)
            sender.send(ended)
            if ended:
                return True
            pause_s = EVERY_S
        except Exception as error:
            if not (run / NAME).exists():
                return False
            sender = None  # a connection that failed once may not mend
            (TrackingState.read(run) or state).failed(run, said(error))
            if time.monotonic() > ends_at:
                return False
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        if ended:
            time.sleep(min(1.0, pause_s))


def send_all(run: Path, uri: str, wait_s: float = 0) -> str | None:
    """Send what a run has left that nobody trains; the problem, or None where all has arrived.

    Args:
        run: its folder, with its tracking.json.
        uri: MLflow's tracking URI.
        wait_s: seconds to wait for another process that sends it.
    """
    from lensmith.tracking.sender import Sender

    with sending_lock(run, wait_s) as mine:
        state = TrackingState.read(run)
        if not mine or state is None:
            return "another process is sending it"
        try:
            Sender(run, state, uri).send(over=True)
        except Exception as error:
            problem = said(error)
            with suppress(OSError):
                (TrackingState.read(run) or state).failed(run, problem)
            return problem
    return None


def left_behind(folder: Path, uri: str) -> list[Path]:
    """Run folders in `folder` that are tracked at `uri`, and have not all arrived; not those that are trained now."""
    found = []
    for file in sorted(folder.glob(f"*/{NAME}")):
        state = TrackingState.read(file.parent)
        if state is None or state.uri != without_password(uri) or state.complete(file.parent):
            continue
        if not RunReader(file.parent).trained_now():
            found.append(file.parent)
    return found


def said(error: Exception) -> str:
    """A problem in one line, without what to do about it: it is tried again anyway."""
    text = f"{error.expected} {error.arrived}" if isinstance(error, LensmithError) else str(error)
    return " ".join(text.split())[:500] or type(error).__name__


def _listen(over: threading.Event) -> None:
    while os.read(0, 4096):  # unbuffered, since a process must not end while a thread holds a buffer's lock
        pass
    over.set()


if __name__ == "__main__":
    with suppress(OSError):
        os.nice(19)
    with open(0, "rb", buffering=0, closefd=False) as told:
        address = told.readline().decode().strip()
    ended = threading.Event()
    threading.Thread(target=_listen, args=[ended], daemon=True).start()
    sys.exit(not main(Path(sys.argv[1]), address, ended))
