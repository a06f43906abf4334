"""The supervisor's worker processes: started, restarted with backoff when they die, killed when they hang."""

import logging
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_double
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from lensmith.config import ServeSettings
from lensmith.core.files import temporary_directory
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.server.bundle_snapshot import BundleSnapshot
from lensmith.serving.server.signals import signals_blocked
from lensmith.serving.server.worker import Message, run_worker

logger = logging.getLogger(__name__)

EARLY_EXIT_S = 5.0
"""A worker that lives shorter than this is restarted later and later, up to MAX_BACKOFF_S."""
MAX_BACKOFF_S = 10.0
HANG_TIMEOUT_S = 60.0
"""Seconds without a heartbeat after which a worker that was ready is killed."""
HANG_CHECK_S = 5.0
"""Seconds between two checks of heartbeats."""


@dataclass(eq=False)
class WorkerProcess:
    """One worker process, as the supervisor sees it.

    Attributes:
        process: the process itself.
        connection: the supervisor's end of the pipe to it.
        bundle: path of the bundle that it serves.
        generation: number of the model swap that started it; 0: the first start.
        heartbeat: shared memory with the time of its last heartbeat.
        started: `time.monotonic()` of its start.
        ready: whether it answers requests.
        retired: whether it has been replaced, or its swap failed, so that it is not restarted.
    """

    process: BaseProcess
    connection: Connection
    bundle: Path
    generation: int
    heartbeat: c_double
    started: float = field(default_factory=time.monotonic)
    ready: bool = False
    retired: bool = False

    def send(self, message: Message) -> None:
        """Send it a message; a worker that has died is noticed elsewhere."""
        with suppress(OSError):
            self.connection.send(message)

    def stop(self) -> None:
        """Ask it to finish (graceful shutdown), with no need to accept connections any longer."""
        self.send(Message("released"))
        self.process.terminate()  # a signal, as it may not listen to messages yet


class WorkerGroup:
    """Worker processes that accept from the same sockets.

    Attributes:
        workers: the live workers of all generations.
        bundle: path of the bundle that restarted workers serve.
        generation: number of the latest swap that succeeded.
    """

    def __init__(self, settings: ServeSettings, listeners: list[socket.socket], channel: SidecarChannel | None) -> None:
        self.workers: list[WorkerProcess] = []
        self.bundle = settings.bundle
        self.generation = 0
        self._settings = settings
        self._listeners = listeners
        self._channel = channel
        self._backoff_s = 0.0
        self._restarts_due: list[float] = []
        self._checked = time.monotonic()
        self._folder = temporary_directory("lensmith-workers-")
        self._snapshots: dict[tuple[Path, int], BundleSnapshot] = {}

    def start(self, bundle: Path, generation: int) -> None:
        """Start one worker.

        Raises:
            OSError: the system has no room for a process now.
        """
        context = get_context("spawn")  # a fork would inherit threads and half of their locks
        ours, theirs = context.Pipe()
        heartbeat = context.RawValue("d", 0.0)
        settings = self._settings.model_copy(update={"bundle": bundle})
        snapshots = self._snapshots_of(bundle, generation)
        arguments = (settings, self._listeners, theirs, heartbeat, self._channel, snapshots)
        process = context.Process(target=run_worker, args=arguments)
        with signals_blocked():  # until it has handlers of its own
            process.start()
        theirs.close()
        self.workers.append(WorkerProcess(process, ours, bundle, generation, heartbeat))

    def take_over(self, bundle: Path, generation: int) -> list[WorkerProcess]:
        """Make a new generation the one that is restarted; returns the retired workers of the others."""
        self.bundle, self.generation = bundle, generation
        self._restarts_due.clear()  # those that died meanwhile have been replaced
        self.forget_snapshots(lambda each: each != generation)
        replaced = [each for each in self.workers if each.generation != generation]
        for each in replaced:
            each.retired = True
        return replaced

    def _snapshots_of(self, bundle: Path, generation: int) -> list[BundleSnapshot]:
        """Snapshots of a generation's bundle and of the one beside it, taken before its first worker starts."""
        wanted = [each for each in (bundle, self._settings.beside) if each is not None]
        if self._channel is not None:  # bundles of the registry are cached by their content, and do not change
            wanted.remove(bundle)
        for each in wanted:
            if (each, generation) not in self._snapshots:
                folder = Path(self._folder.name) / f"{generation}-{len(self._snapshots)}"
                self._snapshots[each, generation] = BundleSnapshot.take(each, folder)
        return [self._snapshots[each, generation] for each in wanted]

    def forget_snapshots(self, of: Callable[[int], bool]) -> None:
        """Remove the snapshots of generations that no longer start workers; those that run have read them."""
        for bundle, generation in [key for key in self._snapshots if of(key[1])]:
            snapshot = self._snapshots.pop((bundle, generation))
            if snapshot.copy is not None:
                shutil.rmtree(snapshot.copy.parent, ignore_errors=True)

    def close(self) -> None:
        """Kill the workers that are left, and remove the snapshots."""
        for each in self.workers:
            each.process.kill()
        self._folder.cleanup()

    def schedule_restart(self, dead: WorkerProcess) -> None:
        """Restart a worker that died, later and later where workers die early."""
        early = time.monotonic() - dead.started < EARLY_EXIT_S
        self._backoff_s = min(MAX_BACKOFF_S, 2 * self._backoff_s + 0.5) if early else 0.0
        self._restarts_due.append(time.monotonic() + self._backoff_s)
        logger.error("process %s ended with exit code %s; another is started", dead.process.pid, dead.process.exitcode)

    def seconds_to_next_task(self) -> float:
        """Seconds until `run_due_tasks` has something to do."""
        return max(0.0, min([self._checked + HANG_CHECK_S, *self._restarts_due]) - time.monotonic())

    def run_due_tasks(self) -> None:
        """Restart the workers that are due, and kill those that hang."""
        for due in [due for due in self._restarts_due if due <= time.monotonic()]:
            self._restarts_due.remove(due)
            try:
                self.start(self.bundle, self.generation)
            except OSError as error:
                logger.error("a process could not be started: %s", error)
                self._restarts_due.append(time.monotonic() + MAX_BACKOFF_S)
        if time.monotonic() >= self._checked + HANG_CHECK_S:
            self._kill_hung()

    def _kill_hung(self) -> None:
        """Kill workers without a heartbeat; like any that die, they are restarted."""
        now = time.monotonic()
        late, self._checked = now - self._checked > 2 * HANG_CHECK_S, now
        if late:  # this process has not run either: the machine stood still
            return
        for each in self.workers:
            silent_s = now - each.heartbeat.value
            if each.ready and not each.retired and silent_s > HANG_TIMEOUT_S:
                logger.error("process %s has hung for %.0f s and is killed", each.process.pid, silent_s)
                each.process.kill()
