"""Several processes of one service: started, replaced when they die, told together to take another model, stopped.

They accept from the same sockets. Each is a whole `lensmith.serve.server.Server`; this one only watches, and loads no
model.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lensmith.config import ServeSettings
from lensmith.errors import LensmithError, ServiceError
from lensmith.serve.member import Message, member

logger = logging.getLogger(__name__)

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
QUICK_DEATH_S = 5.0
"""A process that lives shorter than this is replaced later and later, up to LONGEST_PAUSE_S."""
LONGEST_PAUSE_S = 10.0
STOP_MARGIN_S = 5.0
"""Seconds beyond the grace period until a process that does not end is killed."""


@dataclass
class Member:
    """One process: how to talk to it, and whether it answers requests."""

    process: BaseProcess
    link: Connection
    bundle: Path
    started: float = field(default_factory=time.monotonic)
    ready: bool = False


@dataclass
class Swap:
    """A change of model under way: who asked (None: SIGHUP), who takes part and has yet to be prepared, what failed."""

    path: Path
    asked_by: Member | None
    taking_part: list[Member]
    awaited: list[Member]
    error: LensmithError | None = None


class Supervisor:
    """Keeps `settings.workers` processes at work.

    Args:
        settings: of each process; `bundle` follows swaps, so that a replacement serves what the others do.
        listeners: bound sockets that all accept from.
        announce: called with the model's name once all are ready for the first time.
    """

    def __init__(
        self, settings: ServeSettings, listeners: list[socket.socket], announce: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._announce: Callable[[str], None] | None = announce
        self._members: list[Member] = []
        self._swap: Swap | None = None
        self._pause_s = 0.0
        self._due: list[float] = []
        self._signals: list[int] = []

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT, then end with the last process.

        Raises:
            LensmithError: what kept the first processes from starting.
        """
        with _shared_folder(), self._signals_noted() as woken:
            from prometheus_client import CollectorRegistry, Counter

            self._restarts = Counter(
                "lensmith_worker_restarts", "Processes that died and were replaced.", registry=CollectorRegistry()
            )
            try:
                for _ in range(self._settings.workers):
                    self._start()
                while signal.SIGTERM not in self._signals and signal.SIGINT not in self._signals:
                    self._turn(woken)
                self._stop()
            finally:
                for each in self._members:
                    each.process.kill()

    def _start(self) -> None:
        context = get_context("spawn")  # a copy of this process would inherit threads and half of their locks
        ours, theirs = context.Pipe()
        process = context.Process(target=member, args=(self._settings, self._listeners, theirs))
        process.start()
        theirs.close()
        self._members.append(Member(process, ours, self._settings.bundle))

    def _turn(self, woken: socket.socket) -> None:
        """Wait for something to happen, and see to it."""
        pause = max(0.0, min(self._due) - time.monotonic()) if self._due else None
        happened = wait([woken, *(each.link for each in self._members)], pause)
        if woken in happened:
            woken.recv(4096)
        while signal.SIGHUP in self._signals:
            self._signals.remove(signal.SIGHUP)
            self._begin_swap(self._settings.bundle, None)
        for each in [each for each in self._members if each.link in happened]:
            try:
                self._hear(each, each.link.recv())
            except (EOFError, OSError):
                self._bury(each)
        for _ in [due for due in self._due if due <= time.monotonic()]:
            self._due.remove(min(self._due))
            self._start()

    def _hear(self, sender: Member, message: Message) -> None:
        match message.kind:
            case "ready":
                sender.ready = True
                self._bring_up_to_date(sender)
                if self._announce and all(each.ready for each in self._members) and not self._due:
                    self._announce(str(message.value))
                    self._announce = None
            case "failed":
                if self._announce:  # it never worked
                    raise message.value
                logger.error("a process could not start: %s", message.value)
            case "swap":
                self._begin_swap(Path(message.value), sender)
            case "prepared":
                self._prepared(sender, message.value)

    def _bury(self, dead: Member) -> None:
        """Take leave of a process that ended by itself, and have another in its place."""
        from prometheus_client.multiprocess import mark_process_dead

        self._members.remove(dead)
        dead.link.close()
        dead.process.join()
        mark_process_dead(dead.process.pid)
        if self._announce:
            raise ServiceError(
                "The processes of the service were expected to start.",
                f"One ended with exit code {dead.process.exitcode}.",
                "Start it with --workers 1 to see why.",
            )
        self._restarts.inc()
        quick = time.monotonic() - dead.started < QUICK_DEATH_S
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s + 0.5) if quick else 0.0
        self._due.append(time.monotonic() + self._pause_s)
        logger.error("process %s ended with exit code %s; another is started", dead.process.pid, dead.process.exitcode)
        if self._swap and dead in self._swap.awaited:
            self._prepared(dead, None)

    def _begin_swap(self, path: Path, asked_by: Member | None) -> None:
        if self._swap is not None:
            busy = ServiceError("One swap at a time was expected.", "Another is under way.", "Wait until it has ended.")
            self._tell(asked_by, Message("swapped", busy))
            return
        ready = [each for each in self._members if each.ready]
        self._swap = Swap(path, asked_by, ready, list(ready))
        for each in ready:
            self._tell(each, Message("prepare", path))

    def _prepared(self, sender: Member, error: LensmithError | None) -> None:
        """One process has the new model ready, or cannot; when all have, they take it, and otherwise none does."""
        swap = self._swap
        if swap is None or sender not in swap.awaited:  # it came later than the others, and follows them
            if error is None:
                self._activate(sender)
            return
        swap.awaited.remove(sender)
        swap.error = swap.error or error
        if swap.awaited:
            return
        self._swap = None
        if swap.error is None:
            self._settings = self._settings.model_copy(update={"bundle": swap.path})
            for each in swap.taking_part:
                self._activate(each)
            for each in self._members:
                self._bring_up_to_date(each)
            logger.info("all processes answer with %s", swap.path)
        else:
            logger.error("no process took %s: %s", swap.path, swap.error)
        self._tell(swap.asked_by, Message("swapped", swap.error))

    def _activate(self, receiver: Member) -> None:
        receiver.bundle = self._settings.bundle
        self._tell(receiver, Message("activate", None))

    def _bring_up_to_date(self, each: Member) -> None:
        """Have a process that began with another bundle take the one that the others have."""
        if each.ready and each.bundle != self._settings.bundle:
            self._tell(each, Message("prepare", self._settings.bundle))

    def _tell(self, receiver: Member | None, message: Message) -> None:
        if receiver is not None:
            with suppress(OSError):  # it died, which is heard next
                receiver.link.send(message)

    def _stop(self) -> None:
        """Ask all to finish, and wait for them."""
        for listener in self._listeners:
            listener.close()  # else new connections would go on being taken and never answered
        asked = len(self._signals)
        for each in self._members:
            each.process.terminate()  # whatever it is at: it may not listen to us yet
        end = time.monotonic() + self._settings.grace_s + STOP_MARGIN_S
        while any(each.process.is_alive() for each in self._members) and time.monotonic() < end:
            time.sleep(0.02)
            if len(self._signals) > asked:  # the second signal does not wait
                asked = len(self._signals)
                for each in self._members:
                    self._tell(each, Message("hurry", None))

    @contextmanager
    def _signals_noted(self) -> Iterator[socket.socket]:
        """Note signals; what is yielded becomes readable with each."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)

        def note(number: int, _frame: Any) -> None:
            self._signals.append(number)
            with suppress(OSError):
                waker.send(b"x")

        before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield woken
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            woken.close()
            waker.close()


@contextmanager
def _shared_folder() -> Iterator[None]:
    """A folder in which all processes keep their measurements, told to prometheus_client by the environment."""
    # In memory where possible: these files are mapped, and a process that writes to a full disk that way is ended.
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="lensmith-metrics-", dir=memory if os.access(memory, os.W_OK) else None
    ) as folder:
        os.environ[SHARED_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_FOLDER]
