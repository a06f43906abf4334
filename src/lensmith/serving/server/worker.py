"""One of several processes of a service: a server, and its talk with the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lensmith.config import ServeSettings
from lensmith.errors import LensmithError
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.serving.execution.loaded_model import ModelVersion
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.metrics.logs import logging_as

if TYPE_CHECKING:
    from lensmith.serving.server.server import Server
    from lensmith.serving.service import Service

logger = logging.getLogger(__name__)

BEAT_S = 1.0
"""Seconds between two signs of life."""
NOTE_LOAD_S = 1.0
"""Seconds after which a process writes down its load anew, for whichever is asked for measurements."""


@dataclass(frozen=True)
class Message:
    """What supervisor and process tell each other.

    A process says `ready` (a ModelVersion) or `failed` (the error). It may ask for a `swap` (a bundle's path), and is
    answered with `swapped` (a ModelVersion, or an error) once other processes answer in its place. `hurry` cuts off
    what is under way after SIGTERM.
    """

    kind: Literal["ready", "failed", "swap", "swapped", "hurry"]
    value: Any


class Heartbeat(Protocol):
    """A number in memory that a process shares with the supervisor: when its event loop last turned.

    A message a second would do as well, but to a supervisor that hangs it would in the end not be sent, and hang, too.
    """

    value: float


def run_worker(
    settings: ServeSettings,
    listeners: list[socket.socket],
    link: Connection,
    beat: Heartbeat,
    channel: SidecarChannel | None,
) -> None:
    """Serve until told to stop, or until the supervisor is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # reaches all of a terminal; the supervisor sees to it
    with logging_as(settings):
        try:
            loading = ModelManager.start_loading(settings, channel)
            from lensmith.serving.server.server import Server

            talk = _Talk(link, beat)
            # A terminal and systemd send the signal to stop to every process, and the supervisor says it once more.
            server = Server(loading.result(), settings, listeners, talk.begin, alone=False)
        except LensmithError as error:
            link.send(Message("failed", error))
            return
        talk.server = server
        server.serve_until_stopped()
        if talk.orphaned:
            shutil.rmtree(os.environ[SHARED_FOLDER], ignore_errors=True)


class _Talk:
    """Does what the supervisor says, on the service's event loop."""

    server: Server
    orphaned = False

    def __init__(self, link: Connection, beat: Heartbeat) -> None:
        self._link = link
        self._beat = beat
        self._swapped: asyncio.Future[ModelVersion] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, service: Service) -> None:
        """Say that requests are answered, and listen from then on."""
        self._service = service
        self._loop = asyncio.get_running_loop()
        service.hot_reload.swap_everywhere = self._ask
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()
        for work in (self._live(), self._note_load()):
            task = self._loop.create_task(work)
            self._tasks.add(task)  # the loop itself keeps no hold of it
        self._link.send(Message("ready", service.models.active.identity))

    def _listen(self) -> None:
        while True:
            try:
                message = self._link.recv()
            except (EOFError, OSError):  # the supervisor is gone
                self.orphaned = self.server.should_exit = True  # which is looked at every tenth of a second
                return
            if message.kind == "hurry":
                self.server.force_exit = True
            else:
                self._loop.call_soon_threadsafe(self._answered, message.value)

    def _answered(self, value: ModelVersion | LensmithError) -> None:
        if self._swapped is None or self._swapped.done():
            return
        if isinstance(value, LensmithError):
            self._swapped.set_exception(value)
        else:
            self._swapped.set_result(value)

    async def _ask(self, path: Path) -> ModelVersion:
        """Have other processes answer with the bundle at `path`, and get its name and version."""
        self._swapped = self._loop.create_future()
        self._link.send(Message("swap", path))
        return await self._swapped

    async def _live(self) -> None:
        while True:
            self._beat.value = time.monotonic()
            await asyncio.sleep(BEAT_S)

    async def _note_load(self) -> None:
        while True:
            try:
                self._service.telemetry.update_gauges()
            except Exception:  # an observer does not end what it observes
                logger.exception("measurements could not be written")
            await asyncio.sleep(NOTE_LOAD_S)
