"""From settings to a listening service, and back to exit code 0."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from lensmith.classifier import load
from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.serve.app import Service, create_app

BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Seconds an idle connection is kept: longer than the proxies and pools in front, which then close it first."""
SETTLE_S = 0.3
"""Seconds in which clients that use their kept connections learn that these close, before idle ones are shut."""


def serve(settings: ServeSettings) -> None:
    """Verify the bundle, warm up, answer over HTTP until SIGTERM or SIGINT, and finish what is under way.

    Prints `lensmith serving NAME on URL` to standard output once it is ready.

    Raises:
        BundleError: the bundle is damaged or answers differently from the exporter.
        ServiceError: the address cannot be had.
    """
    listener = _bind(settings)  # before the slow part, so that a taken port is told at once
    with listener:
        classifier = load(settings.bundle, settings.engine, threads=1)
        app = create_app(classifier, settings)
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.grace_s),
        )
        with _address_errors(settings):
            listener.listen(BACKLOG)
        ready_line = f"lensmith serving {classifier.bundle.manifest.name} on {_url(listener)}"
        _Server(config, app.state.service, ready_line).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, with a stop that answers what was sent before it closes, and that ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, service: Service, ready_line: str) -> None:
        super().__init__(config)
        self._service = service
        self._ready_line = ready_line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._ready_line, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would send itself the signal again at the end, and so not exit with 0.
        self.force_exit = self.should_exit  # the second signal does not wait
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closing a kept connection on which a request is just arriving would lose that request, so for a moment every
        # answer asks its client to close. New connections are refused before that: the clients that were asked
        # connect anew, and what still waits to be accepted when the listener closes would be lost as well. Without a
        # backlog the system lets new ones wait outside, while those inside are accepted.
        for listener in sockets or ():
            listener.listen(0)
        await asyncio.sleep(0.05)
        for closing in (*self.servers, *(sockets or ())):
            closing.close()
        self._service.drain()
        loop = asyncio.get_running_loop()
        settled = loop.time() + min(SETTLE_S, self._service.settings.grace_s)
        while self.server_state.connections and loop.time() < settled and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _bind(settings: ServeSettings) -> socket.socket:
    with _address_errors(settings):
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener


@contextmanager
def _address_errors(settings: ServeSettings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"An address that can be listened on was expected: {settings.host}, port {settings.port}.",
            f"The system said: {error.strerror}.",
            "Name another with --port (0 takes any free one) or --host, or stop what listens there.",
        ) from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
