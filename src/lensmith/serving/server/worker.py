"""One worker process of a service: a server, its heartbeat, and its link to the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from ctypes import c_double
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lensmith.config import ServeSettings
from lensmith.errors import LensmithError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.formats import formats_note
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.metrics.logs import logging_as
from lensmith.serving.server.bundle_snapshot import BundleSnapshot
from lensmith.serving.server.signals import ignore_terminal

if TYPE_CHECKING:
    from lensmith.serving.server.server import Server
    from lensmith.serving.service import Service

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
"""Seconds between two heartbeats."""
GAUGES_S = 1.0
"""Seconds after which a worker updates its gauges, for whichever worker is scraped."""


@dataclass(frozen=True)
class Message:
    """A message between the supervisor and a worker.

    A worker sends `ready` (with a ModelVersion and a note) or `failed` (with the error). It may ask for a `swap` (with
    a bundle's path), and is answered with `swapped` (a ModelVersion, or an error) once other workers have replaced it.
    The supervisor sends `released` where a worker that was asked to stop need not accept connections any longer,
    `force_shutdown` to cut off unfinished requests after SIGTERM, and `reload_keys` after SIGHUP.
    """

    kind: Literal["ready", "failed", "swap", "swapped", "released", "force_shutdown", "reload_keys"]
    value: Any = None


def run_worker(
    settings: ServeSettings,
    listeners: list[socket.socket],
    connection: Connection,
    heartbeat: c_double,
    channel: SidecarChannel | None,
    snapshots: Sequence[BundleSnapshot] = (),
) -> None:
    """Serve until the supervisor sends SIGTERM, or is gone.

    Args:
        settings: the service's settings.
        listeners: the sockets that all workers accept from.
        connection: this worker's end of its pipe to the supervisor.
        heartbeat: shared memory for its heartbeat.
        channel: sidecar channel; None: the settings name the bundles.
        snapshots: what to load for the bundles that the settings name.
    """
    ignore_terminal()

    def located(bundle: Path) -> Path:
        return next((each.path() for each in snapshots if each.source == bundle), bundle)

    with logging_as(settings):
        try:
            loading = ModelManager.start_loading(settings, channel, located)
            from lensmith.serving.server.server import Server

            def start_link(service: Service) -> None:
                SupervisorLink(connection, heartbeat, server, service).start()

            # A terminal and systemd send SIGTERM to every process, and the supervisor sends it once more.
            server = Server(loading.result(), settings, listeners, start_link, alone=False)
            server.serve_until_stopped()
        except LensmithError as error:  # before it was ready
            connection.send(Message("failed", error))
            return
        supervisor = parent_process()
        if supervisor is not None and not supervisor.is_alive():
            shutil.rmtree(os.environ[SHARED_FOLDER], ignore_errors=True)


class SupervisorLink:
    """A worker's side of its connection to the supervisor. Made on the service's event loop.

    `heartbeat` is memory shared with the supervisor: `time.monotonic()` when the worker's event loop last ran. Messages
    would do as well, but to a supervisor that hangs they could in the end not be sent, and block the worker.
    """

    def __init__(self, connection: Connection, heartbeat: c_double, server: Server, service: Service) -> None:
        self._connection = connection
        self._heartbeat = heartbeat
        self._server = server
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._swapped: asyncio.Future[ModelVersion] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Report that the worker is ready, and listen to the supervisor from then on."""
        self._service.hot_reload.swap_everywhere = self._swap_everywhere
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()
        # The loop itself holds only weak references.
        self._tasks = [self._loop.create_task(work) for work in (self._beat(), self._update_gauges())]
        active = self._service.models.active
        note = formats_note(active.trained_formats, self._service.settings.formats)
        self._connection.send(Message("ready", (active.identity, note)))

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):  # the supervisor is gone
                self._loop.call_soon_threadsafe(self._server.released.set)
                self._server.should_exit = True  # which is checked every tenth of a second
                return
            if message.kind == "released":
                self._loop.call_soon_threadsafe(self._server.released.set)
            elif message.kind == "force_shutdown":
                self._server.force_exit = True
            elif message.kind == "reload_keys":
                self._loop.call_soon_threadsafe(self._service.hot_reload.reload_keys)
            else:
                self._loop.call_soon_threadsafe(self._finish_swap, message.value)

    def _finish_swap(self, value: ModelVersion | LensmithError) -> None:
        if self._swapped is None or self._swapped.done():
            return
        if isinstance(value, LensmithError):
            self._swapped.set_exception(value)
        else:
            self._swapped.set_result(value)

    async def _swap_everywhere(self, path: Path) -> ModelVersion:
        """Have other workers replace all of this generation with the bundle at `path`."""
        self._swapped = self._loop.create_future()
        self._connection.send(Message("swap", path))
        return await self._swapped

    async def _beat(self) -> None:
        while True:
            self._heartbeat.value = time.monotonic()
            await asyncio.sleep(HEARTBEAT_S)

    async def _update_gauges(self) -> None:
        while True:
            try:
                self._service.telemetry.update_gauges()
            except Exception:  # an observer does not end what it observes
                logger.exception("metrics could not be written")
            await asyncio.sleep(GAUGES_S)
