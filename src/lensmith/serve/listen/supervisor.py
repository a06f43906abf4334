"""Several processes of one service: started, replaced when they die, told together to take another model, stopped.

They accept from the same sockets. Each is a whole `lensmith.serve.listen.server.Server`; this one only watches, and
loads no model.
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
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.serve.listen.change import Changes, Member
from lensmith.serve.listen.member import Message, member

logger = logging.getLogger(__name__)

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
QUICK_DEATH_S = 5.0
"""A process that lives shorter than this is replaced later and later, up to LONGEST_PAUSE_S."""
LONGEST_PAUSE_S = 10.0
HUNG_S = 60.0
"""Seconds without a turn of its event loop after which a process that was ready is killed."""
LOOK_S = 5.0
"""Seconds between two looks at that."""
STOP_MARGIN_S = 5.0
"""Seconds beyond the grace period until a process that does not end is killed."""


class Supervisor:
    """Keeps `settings.workers` processes at work.

    Args:
        settings: of each process.
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
        self._changes = Changes(settings.bundle)
        self._looked = time.monotonic()
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
        settings = self._settings.model_copy(update={"bundle": self._changes.bundle})
        beat = context.RawValue("d", 0.0)
        process = context.Process(target=member, args=(settings, self._listeners, theirs, beat))
        process.start()
        theirs.close()
        self._members.append(Member(process, ours, settings.bundle, beat=beat))

    def _turn(self, woken: socket.socket) -> None:
        """Wait for something to happen, and see to it."""
        pause = max(0.0, min([self._looked + LOOK_S, *self._due]) - time.monotonic())
        happened = wait([woken, *(each.link for each in self._members)], pause)
        if woken in happened:
            woken.recv(4096)
        while signal.SIGHUP in self._signals:
            self._signals.remove(signal.SIGHUP)
            self._changes.begin(self._changes.bundle, None, self._members)
        for each in [each for each in self._members if each.link in happened]:
            try:
                self._hear(each, each.link.recv())
            except (EOFError, OSError):
                self._bury(each)
        for _ in [due for due in self._due if due <= time.monotonic()]:
            self._due.remove(min(self._due))
            self._start()
        if time.monotonic() >= self._looked + LOOK_S:
            self._look()

    def _look(self) -> None:
        """Kill what hangs; as any that dies, it is replaced."""
        now = time.monotonic()
        late, self._looked = now - self._looked > 2 * LOOK_S, now
        if late:  # this one has not run either: the machine stood still
            return
        for each in self._members:
            if each.ready and each.beat is not None and now - each.beat.value > HUNG_S:
                logger.error("process %s has hung for %.0f s and is killed", each.process.pid, now - each.beat.value)
                each.process.kill()

    def _hear(self, sender: Member, message: Message) -> None:
        match message.kind:
            case "ready":
                sender.ready = True
                self._changes.joined(sender)
                if self._announce and all(each.ready for each in self._members) and not self._due:
                    self._announce(str(message.value))
                    self._announce = None
            case "failed":
                if self._announce:  # it never worked
                    raise message.value
                logger.error("a process could not start: %s", message.value)
            case "swap":
                self._changes.begin(Path(message.value), sender, self._members)
            case "prepared":
                self._changes.prepared(sender, message.value)
            case "activated":
                self._changes.activated(sender)

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
        self._changes.lost(dead)

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
                    each.tell(Message("hurry", None))

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
