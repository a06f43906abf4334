"""The supervisor of several worker processes: model swaps by generations of workers, and graceful shutdown.

The workers accept from the same sockets. Each is a whole `lensmith.serving.server.server.Server`; the supervisor loads
no model.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from lensmith.config import ServeSettings
from lensmith.errors import BundleError, LensmithError, ServiceError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.auth import audit
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.metrics.shared import SharedFiles, merge_counts_of_dead
from lensmith.serving.metrics.shared_values import use_value_class
from lensmith.serving.server.signals import SignalInbox
from lensmith.serving.server.worker import Message
from lensmith.serving.server.worker_group import WorkerGroup, WorkerProcess

logger = logging.getLogger(__name__)

KILL_MARGIN_S = 5.0
"""Seconds beyond the grace period until a worker that does not end is killed."""
ACCEPT_S = 0.05
"""Seconds in which waiting connections are accepted before the sockets close; workers accept until then."""


@dataclass
class ModelSwap:
    """A model swap under way: a new generation of workers starts with another bundle beside those that answer.

    Once all of them are ready the others are retired; where one cannot start, the new ones end and nothing has changed.

    Attributes:
        bundle: path of the new bundle.
        generation: number of the new generation.
        asked_by: the worker that asked for it; None: SIGHUP.
    """

    bundle: Path
    generation: int
    asked_by: WorkerProcess | None

    def report(self, outcome: ModelVersion | LensmithError) -> None:
        """Report the end of the swap to the worker that asked, or to the audit log."""
        if self.asked_by is not None:
            self.asked_by.send(Message("swapped", outcome))
        elif isinstance(outcome, LensmithError):
            audit.record("SIGHUP", None, "", "refused", bundle=str(self.bundle), reason=str(outcome))
        else:
            audit.record("SIGHUP", None, "", "done", bundle=str(self.bundle), model=str(outcome))


class Supervisor:
    """Runs `settings.workers` worker processes. Made and run within `shared_metrics_folder`.

    `announce` is called with the model's name and a note on its formats once all are ready for the first time.
    `reload_at_once` returns whether SIGHUP arrived before this handled it.
    """

    def __init__(
        self,
        settings: ServeSettings,
        listeners: list[socket.socket],
        announce: Callable[[str, str], None],
        channel: SidecarChannel | None = None,
        reload_at_once: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._announce: Callable[[str, str], None] | None = announce
        self._group = WorkerGroup(settings, listeners, channel)
        self._signals = SignalInbox()
        self._reload_at_once = reload_at_once
        self._reload_wanted = False
        use_value_class()
        self._metrics_files = SharedFiles(Path(os.environ[SHARED_FOLDER]))
        what = "Processes that died and were replaced."
        self._restarts = Counter("lensmith_worker_restarts", what, registry=CollectorRegistry())
        self._swap: ModelSwap | None = None
        self._newest_generation = 0

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then end with the last worker.

        Raises:
            LensmithError: the first workers could not start.
        """
        with self._signals.installed():
            self._signals.hangup |= self._reload_at_once()
            try:
                for _ in range(self._settings.workers):
                    self._group.start(self._group.bundle, self._group.generation)
                while not self._signals.stops:
                    self._handle_events()
                self._shut_down()
            finally:
                self._group.close()

    def _handle_events(self) -> None:
        """Wait for signals, messages, deaths or due tasks, and handle them."""
        sources: list[Any] = [self._signals.readable, *(each.connection for each in self._group.workers)]
        happened = wait(sources, self._group.seconds_to_next_task())
        if self._signals.readable in happened:
            self._signals.readable.recv(4096)
        if self._signals.hangup:
            self._signals.hangup = False
            self._reload_wanted = True
            for each in self._group.workers:  # also those that start: they have read the keys perhaps before a change
                each.send(Message("reload_keys"))
        if self._reload_wanted and not self._announce:
            if self._swap is not None and self._swap.asked_by is None:
                self._abort_swap(ServiceError("A reload was begun.", "SIGHUP asked for another.", "That one follows."))
            if self._swap is None:  # else once more when it has ended: what is on disk may have changed since it began
                self._reload_wanted = False
                self._start_swap(self._group.bundle, None)
        for each in [each for each in self._group.workers if each.connection in happened]:
            try:
                message = each.connection.recv()
            except (EOFError, OSError):
                self._handle_death(each)
            else:
                self._handle_message(each, message)
        self._group.run_due_tasks()
        self._metrics_files.store()

    def _handle_message(self, sender: WorkerProcess, message: Message) -> None:
        match message.kind:
            case "ready":
                sender.ready = True
                self._handle_ready(*message.value)
            case "failed" if self._announce:  # the first start
                raise message.value
            case "failed" if self._is_swapping(sender):
                self._abort_swap(message.value)
            case "failed":
                logger.error("a process could not start: %s", message.value)
                if isinstance(message.value, BundleError):  # the snapshot is gone, too, or was changed
                    self._reload_wanted = True  # all serve what is there now, rather than two versions by turns
            case "swap":
                self._start_swap(Path(message.value), sender)

    def _handle_ready(self, model: ModelVersion, note: str) -> None:
        """Announce the first generation, or let a new one take over, once its last worker is ready."""
        wanted = self._swap.generation if self._swap else self._group.generation
        newest = [each for each in self._group.workers if each.generation == wanted]
        if len(newest) < self._settings.workers or not all(each.ready for each in newest):
            return
        if self._announce:
            self._announce(model.name, note)
            self._announce = None
        elif self._swap is not None:
            swap, self._swap = self._swap, None
            if note:
                logger.warning("%s: %s", model, note)
            for each in self._group.take_over(swap.bundle, swap.generation):
                if each is not swap.asked_by:
                    each.stop()
            swap.report(model)
            if swap.asked_by is not None:
                swap.asked_by.stop()

    def _is_swapping(self, worker: WorkerProcess) -> bool:
        return self._swap is not None and worker.generation == self._swap.generation

    def _start_swap(self, bundle: Path, asked_by: WorkerProcess | None) -> None:
        if self._swap is not None or self._announce:
            if asked_by is not None:
                busy = ServiceError("One swap at a time was expected.", "Another is under way.", "Wait until it ends.")
                asked_by.send(Message("swapped", busy))
            return
        self._newest_generation += 1
        self._swap = ModelSwap(bundle, self._newest_generation, asked_by)
        try:
            for _ in range(self._settings.workers):
                self._group.start(bundle, self._swap.generation)
        except OSError as error:
            self._abort_swap(ServiceError("Room for new processes was expected.", f"{error}.", "Free some memory."))

    def _abort_swap(self, error: LensmithError) -> None:
        """End the workers of a swap that failed."""
        assert self._swap is not None
        swap, self._swap = self._swap, None
        for each in self._group.workers:
            if each.generation == swap.generation:
                each.retired = True
                each.process.kill()
        self._group.forget_snapshots(lambda each: each == swap.generation)
        swap.report(error)

    def _handle_death(self, dead: WorkerProcess) -> None:
        """Clean up after a worker that ended, and have another started where it was needed."""
        self._group.workers.remove(dead)
        dead.connection.close()
        dead.process.join()
        merge_counts_of_dead(int(dead.process.pid or 0))
        if dead.retired or self._signals.is_stopping(dead.process.exitcode):
            return
        if self._announce or self._is_swapping(dead):
            error = ServiceError(
                f"Processes that serve {dead.bundle} were expected to start.",
                f"One ended with exit code {dead.process.exitcode}.",
                "Start it with --workers 1 to see why.",
            )
            if self._announce:
                raise error
            self._abort_swap(error)
        else:
            self._restarts.inc()
            self._group.schedule_restart(dead)

    def _shut_down(self) -> None:
        """Ask all workers to finish (graceful shutdown), and wait for them; a second signal forces it."""
        logger.info("stopping")
        for listener in self._listeners:
            listener.listen(0)  # new connections wait outside, while those in the backlog are accepted
        time.sleep(ACCEPT_S)
        for listener in self._listeners:
            listener.close()
        stops = self._signals.stops
        for each in self._group.workers:
            each.stop()
        end = time.monotonic() + self._settings.grace_s + KILL_MARGIN_S
        while any(each.process.is_alive() for each in self._group.workers) and time.monotonic() < end:
            time.sleep(0.02)
            if self._signals.stops > stops:
                stops = self._signals.stops
                for each in self._group.workers:
                    each.send(Message("force_shutdown"))
