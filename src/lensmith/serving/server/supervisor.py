"""Several processes of one service: started, replaced when they die or hang, or when another model is to answer.

They accept from the same sockets. Each is a whole `lensmith.serving.server.server.Server`; this one only watches, and
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
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lensmith.config import ServeSettings
from lensmith.errors import LensmithError, ServiceError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.auth import audit
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.server.worker import Heartbeat, Message, run_worker

logger = logging.getLogger(__name__)

QUICK_DEATH_S = 5.0
"""A process that lives shorter than this is replaced later and later, up to LONGEST_PAUSE_S."""
LONGEST_PAUSE_S = 10.0
HUNG_S = 60.0
"""Seconds without a turn of its event loop after which a process that was ready is killed."""
LOOK_S = 5.0
"""Seconds between two looks at that."""
STOP_MARGIN_S = 5.0
"""Seconds beyond the grace period until a process that does not end is killed."""
SETTLE_S = 0.05
"""Seconds in which what waits to be accepted is, before the sockets close."""


@dataclass(eq=False)
class WorkerProcess:
    """One process: how to talk to it, what it serves, when its event loop last turned, and where it is in its life."""

    process: BaseProcess
    link: Connection
    bundle: Path
    generation: int
    beat: Heartbeat
    started: float = field(default_factory=time.monotonic)
    ready: bool = False
    retired: bool = False


@dataclass
class ModelSwap:
    """Another bundle on its way: processes of a generation of their own start with it beside those that answer.

    Once all of them are ready the others are retired; where one cannot start, they all end and nothing has changed.
    """

    bundle: Path
    generation: int
    asked_by: WorkerProcess | None


class Supervisor:
    """Keeps `settings.workers` processes at work.

    Args:
        settings: of each process.
        listeners: bound sockets that all accept from.
        announce: called with the model's name once all are ready for the first time.
        channel: of the process that follows the registry, where the bundle comes from there.
    """

    def __init__(
        self,
        settings: ServeSettings,
        listeners: list[socket.socket],
        announce: Callable[[str], None],
        channel: SidecarChannel | None = None,
    ) -> None:
        self._channel = channel
        self._settings = settings
        self._listeners = listeners
        self._announce: Callable[[str], None] | None = announce
        self._bundle = settings.bundle
        self._generation = self._newest = 0
        self._change: ModelSwap | None = None
        self._members: list[WorkerProcess] = []
        self._looked = time.monotonic()
        self._pause_s = 0.0
        self._due: list[float] = []
        self._stops = 0
        self._reload = False

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT, then end with the last process.

        Raises:
            LensmithError: what kept the first processes from starting.
        """
        with _shared_folder(), self._signals_noted() as woken:
            from lensmith.serving.metrics.shared import Restarts

            self._restarts = Restarts()
            try:
                for _ in range(self._settings.workers):
                    self._start(self._bundle, self._generation)
                while not self._stops:
                    self._turn(woken)
                self._stop()
            finally:
                for each in self._members:
                    each.process.kill()

    def _start(self, bundle: Path, generation: int) -> None:
        context = get_context("spawn")  # a copy of this process would inherit threads and half of their locks
        ours, theirs = context.Pipe()
        beat = context.RawValue("d", 0.0)
        settings = self._settings.model_copy(update={"bundle": bundle})
        process = context.Process(target=run_worker, args=(settings, self._listeners, theirs, beat, self._channel))
        process.start()
        theirs.close()
        self._members.append(WorkerProcess(process, ours, bundle, generation, beat))

    def _turn(self, woken: socket.socket) -> None:
        """Wait for something to happen, and see to it."""
        pause = max(0.0, min([self._looked + LOOK_S, *self._due]) - time.monotonic())
        happened = wait([woken, *(each.link for each in self._members)], pause)
        if woken in happened:
            woken.recv(4096)
        if self._reload:
            self._reload = False
            self._begin_change(self._bundle, None)
        for each in [each for each in self._members if each.link in happened]:
            try:
                message = each.link.recv()
            except (EOFError, OSError):
                self._bury(each)
            else:
                self._hear(each, message)
        for due in [due for due in self._due if due <= time.monotonic()]:
            self._due.remove(due)
            try:
                self._start(self._bundle, self._generation)
            except OSError as error:  # the system has no room for a process now
                logger.error("a process could not be started: %s", error)
                self._due.append(time.monotonic() + LONGEST_PAUSE_S)
        if time.monotonic() >= self._looked + LOOK_S:
            self._look()

    def _look(self) -> None:
        """Kill what hangs; as any that dies, it is replaced."""
        now = time.monotonic()
        late, self._looked = now - self._looked > 2 * LOOK_S, now
        if late:  # this one has not run either: the machine stood still
            return
        for each in self._members:
            if each.ready and not each.retired and now - each.beat.value > HUNG_S:
                logger.error("process %s has hung for %.0f s and is killed", each.process.pid, now - each.beat.value)
                each.process.kill()

    def _hear(self, sender: WorkerProcess, message: Message) -> None:
        match message.kind:
            case "ready":
                sender.ready = True
                self._all_ready(message.value)
            case "failed":
                self._failed(sender, message.value)
            case "swap":
                self._begin_change(Path(message.value), sender)

    def _all_ready(self, model: ModelVersion) -> None:
        """Announce the first generation, or let a new one take over, once the last of it is ready."""
        wanted = self._change.generation if self._change else self._generation
        newest = [each for each in self._members if each.generation == wanted]
        if len(newest) < self._settings.workers or not all(each.ready for each in newest):
            return
        if self._announce:
            self._announce(model.name)
            self._announce = None
        elif self._change is not None:
            change, self._change = self._change, None
            self._bundle, self._generation = change.bundle, change.generation
            self._due.clear()  # who died meanwhile has been replaced
            for each in self._members:
                if each.generation != self._generation:
                    each.retired = True
                    if each is not change.asked_by:
                        each.process.terminate()  # it finishes what is under way
            if change.asked_by is None:
                audit.record("SIGHUP", None, "", "done", bundle=str(change.bundle), model=str(model))
            else:
                _tell(change.asked_by, Message("swapped", model))
                change.asked_by.process.terminate()

    def _failed(self, sender: WorkerProcess, error: LensmithError) -> None:
        if self._announce:  # it never worked
            raise error
        if self._change is not None and sender.generation == self._change.generation:
            self._give_up(error)
        else:
            logger.error("a process could not start: %s", error)

    def _begin_change(self, bundle: Path, asked_by: WorkerProcess | None) -> None:
        if self._change is not None or self._announce:
            busy = ServiceError("One swap at a time was expected.", "Another is under way.", "Wait until it has ended.")
            _tell(asked_by, Message("swapped", busy))
            return
        self._newest += 1
        self._change = ModelSwap(bundle, self._newest, asked_by)
        try:
            for _ in range(self._settings.workers):
                self._start(bundle, self._change.generation)
        except OSError as error:
            self._give_up(ServiceError("Room for new processes was expected.", f"{error}.", "Free some memory."))

    def _give_up(self, error: LensmithError) -> None:
        """End the processes of a change that failed."""
        assert self._change is not None
        change, self._change = self._change, None
        for each in self._members:
            if each.generation == change.generation:
                each.retired = True
                each.process.kill()
        if change.asked_by is None:
            audit.record("SIGHUP", None, "", "refused", bundle=str(change.bundle), reason=str(error))
        _tell(change.asked_by, Message("swapped", error))

    def _bury(self, dead: WorkerProcess) -> None:
        """Take leave of a process that ended, and where it was needed have another in its place."""
        from lensmith.serving.metrics.shared import merge_counts_of_dead

        self._members.remove(dead)
        dead.link.close()
        dead.process.join()
        merge_counts_of_dead(int(dead.process.pid or 0))
        if dead.retired:
            return
        code = dead.process.exitcode
        if self._announce:
            raise ServiceError(
                "The processes of the service were expected to start.",
                f"One ended with exit code {code}.",
                "Start it with --workers 1 to see why.",
            )
        if self._change is not None and dead.generation == self._change.generation:
            died = ServiceError(
                f"Processes that serve {dead.bundle} were expected to start.",
                f"One ended with exit code {code}.",
                "Serve it alone to see why.",
            )
            self._give_up(died)
            return
        self._restarts.inc()
        quick = time.monotonic() - dead.started < QUICK_DEATH_S
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s + 0.5) if quick else 0.0
        self._due.append(time.monotonic() + self._pause_s)
        logger.error("process %s ended with exit code %s; another is started", dead.process.pid, code)

    def _stop(self) -> None:
        """Ask all to finish, and wait for them."""
        logger.info("stopping")
        for listener in self._listeners:
            listener.listen(0)  # new connections wait outside, while those that wait inside are accepted
        time.sleep(SETTLE_S)
        for listener in self._listeners:
            listener.close()
        asked = self._stops
        for each in self._members:
            each.process.terminate()  # whatever it is at: it may not listen to us yet
        end = time.monotonic() + self._settings.grace_s + STOP_MARGIN_S
        while any(each.process.is_alive() for each in self._members) and time.monotonic() < end:
            time.sleep(0.02)
            if self._stops > asked:  # the second signal does not wait
                asked = self._stops
                for each in self._members:
                    _tell(each, Message("hurry", None))

    @contextmanager
    def _signals_noted(self) -> Iterator[socket.socket]:
        """Note signals; what is yielded becomes readable with each."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)

        def note(number: int, _frame: Any) -> None:
            if number == signal.SIGHUP:
                self._reload = True
            else:
                self._stops += 1
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


def _tell(receiver: WorkerProcess | None, message: Message) -> None:
    if receiver is not None:
        with suppress(OSError):  # it died, which is noticed next
            receiver.link.send(message)


@contextmanager
def _shared_folder() -> Iterator[None]:
    """A folder in which all processes keep their measurements, told to prometheus_client by the environment."""
    # In memory where possible: these files are mapped, and a process that writes to a full disk that way is ended.
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="lensmith-metrics-", dir=memory if os.access(memory, os.W_OK) else None, ignore_cleanup_errors=True
    ) as folder:
        os.environ[SHARED_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_FOLDER]
