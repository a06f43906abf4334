"""Distributed training on this machine: starts a process for each rank, forwards signals, and reports the first error.

Each process is `python -m lensmith.training.worker RUN`. On several machines `torchrun` starts them instead.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from types import FrameType

from lensmith.core.machine import allowed_cores
from lensmith.errors import RunError
from lensmith.training.microbatch.distributed import RENDEZVOUS, LostRankError
from lensmith.training.microbatch.memory import TooLargeError
from lensmith.training.signals import RunInterruptedError, blocked_signals, handled_signals, unblock_signals

ERRORS = "LENSMITH_ERRORS"
"""Environment variable: the folder where a rank that fails writes its error."""

GRACE_S = 30.0
"""Seconds that the other ranks have to end, once one has failed."""


def launch(run: Path, processes: int) -> None:
    """Train a run folder with so many processes, one a rank; returns when all have ended.

    Raises:
        RunInterruptedError: a signal asked the run to stop; it is saved.
        RunError: the error of the first rank that failed.
        KeyboardInterrupt: Ctrl-C while the processes were still starting (SIGTERM ends this one, then).
    """
    with tempfile.TemporaryDirectory(prefix="lensmith-") as folder:
        errors = Path(folder)
        children: list[subprocess.Popen[bytes]] = []
        try:
            with _forwarding(children) as received:
                children += [_start(run, rank, processes, errors) for rank in range(processes)]
                unblock_signals()
                _wait(children)
        finally:
            codes = [child.poll() for child in children]  # None: it did not end by itself
            for child in children:
                child.kill()
                child.wait()
        for number in received:
            if -number in codes:  # before it could save
                signal.raise_signal(number)
        if any(codes):
            raise _error(run, errors, codes)


def write_error(error: RunError | Exception, rank: int) -> None:
    """In a rank's process: write its error for the process that started it."""
    fields = {name: getattr(error, name, "") for name in ("expected", "arrived", "remedy", "exit_code")}
    text = json.dumps({"kind": type(error).__name__, "text": str(error), "time": time.time(), **fields})
    (Path(os.environ[ERRORS]) / f"{rank}.json").write_text(text, encoding="utf-8")


def end_with_parent() -> None:
    """In a rank's process: save and end when the process that started it has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _start(run: Path, rank: int, processes: int, errors: Path) -> subprocess.Popen[bytes]:
    threads = str(max(1, allowed_cores() // processes))
    environment = {
        "OMP_NUM_THREADS": threads,
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        RENDEZVOUS: f"file://{errors / 'rendezvous'}",
        ERRORS: str(errors),
    }
    command = [sys.executable, "-m", "lensmith.training.worker", str(run)]
    # In a session of its own, so that Ctrl-C reaches it once: through here.
    return subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL)


@contextmanager
def _forwarding(children: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forward Ctrl-C and SIGTERM to the children during the block.

    Yields:
        The signals received so far. They are blocked until the caller unblocks them; children that are started before
        that also start with them blocked.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    if threading.current_thread() is not threading.main_thread():  # elsewhere Python forbids handlers
        yield received
        return
    with blocked_signals():
        before = {number: signal.signal(number, forward) for number in handled_signals()}
        try:
            yield received
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _wait(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended, or until GRACE_S after one has failed."""
    failed_at: float | None = None
    while any(child.poll() is None for child in children):
        if failed_at is None and any(child.returncode for child in children):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE_S:
            return
        time.sleep(0.05)


def _error(run: Path, folder: Path, codes: Sequence[int | None]) -> RunError:
    """The error of the first rank that failed, or the signal that ended it; the others mostly report a lost rank."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    found = sorted((error for error in found if error["kind"] != LostRankError.__name__), key=itemgetter("time"))
    first = found[0] if found else None
    killed = next(((rank, signal.Signals(-code)) for rank, code in enumerate(codes) if code and code < 0), None)
    if first and first["expected"]:
        kinds = {kind.__name__: kind for kind in (RunInterruptedError, TooLargeError)}
        error = kinds.get(first["kind"], RunError)(first["expected"], first["arrived"], first["remedy"])
        error.exit_code = first["exit_code"]
        return error
    if first:
        arrived = f"One of them failed ({' '.join(first['text'].split())})."
    elif killed:
        arrived = f"Process {killed[0]} was ended by {killed[1].name}, as the system does where memory is short."
    else:
        arrived = f"Their exit codes are {', '.join(map(str, codes))}."
    return RunError(
        f"All {len(codes)} processes were expected to train to the end.",
        arrived,
        f"Resume from the last checkpoint with: lensmith train --resume {run}",
    )
