"""One of several processes of a service: a server, and its talk with the supervisor."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lensmith.config import ServeSettings
from lensmith.errors import BundleError, LensmithError
from lensmith.serve.watch.logs import logging_as
from lensmith.serve.work.models import Models

if TYPE_CHECKING:
    from lensmith.serve.listen.server import Server
    from lensmith.serve.service import Service

logger = logging.getLogger(__name__)

NOTE_LOAD_S = 1.0
"""Seconds after which a process writes down its load anew, for whichever is asked for measurements."""


@dataclass(frozen=True)
class Message:
    """What supervisor and process tell each other.

    A process says `ready` (value: the model's name) or `failed` (the error); asks for a `swap` (path), and answers
    `prepare` (path) with `prepared` (an error, or None). `activate` follows if all are prepared, and is answered with
    `activated`; whoever asked gets `swapped` (an error, or None). Once SIGTERM has told it to stop, `hurry` cuts
    off what is under way.
    """

    kind: Literal["ready", "failed", "swap", "prepare", "prepared", "activate", "activated", "swapped", "hurry"]
    value: Any


class Beat(Protocol):
    """A number in memory that a process shares with the supervisor: when its event loop last turned.

    A message a second would do as well, but to a supervisor that hangs it would in the end not be sent, and hang, too.
    """

    value: float


def member(settings: ServeSettings, listeners: list[socket.socket], link: Connection, beat: Beat) -> None:
    """Serve until told to stop, or until the supervisor is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # reaches all of a terminal; the supervisor sees to it
    with logging_as(settings):
        try:
            loading = Models.begin_loading(settings)
            from lensmith.serve.listen.server import Server

            talk = _Talk(link, beat)
            # A terminal and systemd send the signal to stop to every process, and the supervisor says it once more.
            server = Server(loading.result(), settings, listeners, talk.begin, hurries=False)
        except LensmithError as error:
            link.send(Message("failed", error))
            return
        talk.server = server
        server.serve_until_stopped()


class _Talk:
    """Does what the supervisor says, on the service's event loop."""

    server: Server

    def __init__(self, link: Connection, beat: Beat) -> None:
        self._link = link
        self._beat = beat
        self._swapped: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, service: Service) -> None:
        """Say that requests are answered, and listen from then on."""
        self._service = service
        self._loop = asyncio.get_running_loop()
        service.swap_everywhere = self._ask
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()
        self._beat.value = time.monotonic()
        self._run(self._note_load())
        self._link.send(Message("ready", service.models.active.name))

    def _listen(self) -> None:
        message = None
        while message is None or message.kind != "hurry":
            try:
                message = self._link.recv()
            except (EOFError, OSError):  # the supervisor is gone
                self.server.should_exit = True  # looked at every tenth of a second
                return
            self._loop.call_soon_threadsafe(self._do, message)

    def _do(self, message: Message) -> None:
        match message.kind:
            case "prepare":
                self._run(self._prepare(message.value))
            case "activate":
                self._service.activate()
                self._link.send(Message("activated", None))
            case "hurry":
                self.server.force_exit = True
            case "swapped" if self._swapped is not None:
                if message.value is None:
                    self._swapped.set_result(None)
                else:
                    self._swapped.set_exception(message.value)

    async def _ask(self, path: Path) -> None:
        """Have all processes take the bundle at `path`."""
        self._swapped = self._loop.create_future()
        self._link.send(Message("swap", path))
        await self._swapped

    async def _prepare(self, path: Path) -> None:
        error: LensmithError | None = None
        try:
            await self._service.prepare(path)
        except LensmithError as found:
            error = found
        except Exception as fault:  # whatever it is, the others wait for an answer
            logger.exception("%s could not be loaded", path)
            error = BundleError("A bundle that can be served was expected.", f"{path}: {fault}.", "See the log.")
        self._link.send(Message("prepared", error))

    async def _note_load(self) -> None:
        while True:
            self._beat.value = time.monotonic()
            self._service.telemetry.note_load()
            await asyncio.sleep(NOTE_LOAD_S)

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)
