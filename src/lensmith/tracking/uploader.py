"""Uploader process of a training: sends its events, `python -m lensmith.tracking.uploader RUN`.

One line on standard input has the tracking URI; the end of the input means the end of the training, which comes also
when that process is killed. The uploader has the lowest priority on the machine, and imports MLflow late.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from lensmith.config.values import without_password
from lensmith.errors import LensmithError
from lensmith.tracking.state import NAME, TrackingState, sending_lock, unsent_state

EVERY_S = 5.0
"""Seconds between two attempts to send, and before the first, so that a training begins undisturbed."""

MAX_PAUSE_S = 60.0
"""Longest pause between two attempts while the tracking server is unreachable, in seconds."""

GRACE_S = 20.0
"""Seconds after the end of the training in which failed attempts are repeated."""


def main(run: Path, uri: str, over: threading.Event, overdue: threading.Event) -> bool:
    """Send a run until its training is over, then its incomplete sibling runs; returns whether the run has arrived.

    Args:
        run: path of the run folder, which has a tracking.json.
        uri: MLflow's tracking URI.
        over: event that is set at the end of the training.
        overdue: event that is set GRACE_S later, after which failed attempts are not repeated.
    """
    with suppress(OSError):  # the training removes the folder of a run that never began
        while True:
            # The uploader from before a resumption may still hold the lock.
            with sending_lock(run, EVERY_S) as mine:
                if mine and follow(run, uri, over, overdue):
                    break
            if mine or overdue.is_set():
                return False
        for other in incomplete_runs(run.parent, uri):
            send_all(other, uri)
        return True
    return False


def follow(run: Path, uri: str, over: threading.Event, overdue: threading.Event) -> bool:
    """Send a run that this process has locked until its training is over; returns whether all has arrived.

    Raises:
        OSError: the run folder is missing.
    """
    from lensmith.tracking.sender import Sender

    sender: Sender | None = None
    pause_s = EVERY_S
    while True:
        ended = over.wait(pause_s)
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
            sender = None  # a failed connection may never recover
            problem = problem_text(error)
            (TrackingState.read(run) or state).write(run, tried_at=time.time(), problem=problem)
            if ended and overdue.is_set():
                return False
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        if ended:
            time.sleep(min(1.0, pause_s))


def send_all(run: Path, uri: str, wait_s: float = 0) -> str | None:
    """Send the rest of a run that is not being trained; returns the problem, or None where all has arrived.

    Another process that is sending it is waited for, for up to `wait_s` seconds.
    """
    from lensmith.tracking.sender import Sender

    with sending_lock(run, wait_s) as mine:
        state = TrackingState.read(run)
        if not mine or state is None:
            return "another process is sending it"
        try:
            Sender(run, state, uri).send(over=True)
        except Exception as error:
            problem = problem_text(error)
            with suppress(OSError):
                (TrackingState.read(run) or state).write(run, tried_at=time.time(), problem=problem)
            return problem
    return None


def incomplete_runs(folder: Path, uri: str) -> list[Path]:
    """Run folders in `folder` that are tracked at `uri`, not being trained, and not sent completely."""
    states = {file.parent: unsent_state(file.parent) for file in sorted(folder.glob(f"*/{NAME}"))}
    return [run for run, state in states.items() if state and state.uri == without_password(uri)]


def problem_text(error: Exception) -> str:
    """An error in one line, without its remedy, since sending is repeated anyway."""
    text = f"{error.expected} {error.arrived}" if isinstance(error, LensmithError) else str(error)
    return " ".join(text.split())[:500] or type(error).__name__


def _listen(over: threading.Event, overdue: threading.Event) -> None:
    while os.read(0, 4096):  # unbuffered, since a process cannot end while a thread holds a buffer's lock
        pass
    over.set()
    time.sleep(GRACE_S)
    overdue.set()


if __name__ == "__main__":
    with suppress(OSError):
        os.nice(19)
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        address = stdin.readline().decode().strip()
    events = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=events, daemon=True).start()
    sys.exit(not main(Path(sys.argv[1]), address, *events))
