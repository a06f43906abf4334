"""The HTTP server of one process, with graceful shutdown: it answers what was sent before it closes."""

import asyncio
import gc
import logging
import math
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from lensmith.config import ServeSettings
from lensmith.errors import ServiceError
from lensmith.serving.app import create_app
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.server.listeners import BACKLOG, listen
from lensmith.serving.server.protocol import BoundedProtocol
from lensmith.serving.service import Service

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Seconds until an idle connection is closed: longer than proxies and pools in front, which then close it first."""
ACCEPT_S = 0.05
"""Seconds in which waiting connections are accepted before the sockets close."""
RELEASE_S = 2.0
"""Longest wait of a stopping worker for its supervisor's release, in seconds; it accepts connections meanwhile."""
CLOSE_NOTICE_S = 0.3
"""Seconds in which answers ask clients to close their keep-alive connections, before idle ones are shut."""


class Server(uvicorn.Server):
    """uvicorn with graceful shutdown: requests that were sent are answered, and the exit code is 0.

    Args:
        models: the loaded models.
        settings: the service's settings.
        listeners: bound sockets: the service's, then those of health probes where they have a port of their own.
        ready: called on the event loop with the service, once requests are answered.
        alone: whether no other process accepts from the same sockets; a second signal then forces the shutdown.

    Attributes:
        released: set by the supervisor, once no connection waits to be accepted; unused in a process that is alone.
    """

    def __init__(
        self,
        models: ModelManager,
        settings: ServeSettings,
        listeners: list[socket.socket],
        ready: Callable[[Service], None],
        alone: bool = True,
    ) -> None:
        app = create_app(models, settings)
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            workers=1,  # else uvicorn reads WEB_CONCURRENCY, which is meant for others and may be no number
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.grace_s),
        )
        super().__init__(config)
        self.service: Service = app.state.service
        if settings.health_port is not None:
            self.service.health_port = listeners[-1].getsockname()[1]
        self._listeners = listeners
        self._ready = ready
        self._alone = alone
        self.released = asyncio.Event()

    def serve_until_stopped(self) -> None:
        """Answer requests until SIGTERM or SIGINT, and finish those under way."""
        self.run(sockets=self._listeners)
        logger.info("stopped")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn. Listens once the service is ready, and not before.

        Raises:
            ServiceError: another program listens at an address.
        """
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(1)
        try:
            if self.should_exit:  # stopped meanwhile
                await self.lifespan.shutdown()
                return
            listen(self._listeners)
        except ServiceError:
            await self.lifespan.shutdown()
            raise
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._protocol, sock=each, backlog=BACKLOG) for each in self._listeners
        ]
        self.started = True
        logger.info(self.service.startup_report)
        if self.service.health_port is not None:
            logger.info("health and metrics on port %d", self.service.health_port)
        # What is allocated now stays; the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._ready(self.service)

    def _protocol(self) -> BoundedProtocol:
        """A new connection, as uvicorn makes them."""
        return BoundedProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn, whose own would send itself the signal again at the end, and so not exit with 0."""
        self.force_exit |= self.should_exit and self._alone
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        # Closing a keep-alive connection on which a request is just arriving would lose that request, so for a moment
        # every answer asks its client to close. New connections are refused before that: the clients that were asked
        # connect anew, and connections still in the backlog when the listener closes would be lost as well. With an
        # empty backlog the system lets new ones wait outside, while those inside are accepted.
        # With several processes the supervisor empties the backlog, as it may be for the others. A signal to all
        # processes at once may reach it later than this one, which accepts until the supervisor is done.
        if self._alone:
            for listener in sockets or ():
                listener.listen(0)
            await asyncio.sleep(ACCEPT_S)
        else:
            with suppress(TimeoutError):  # somebody stopped this process alone, and others accept
                await asyncio.wait_for(self.released.wait(), RELEASE_S)
        for closing in (*self.servers, *(sockets or ())):
            closing.close()
        self.service.drain()
        loop = asyncio.get_running_loop()
        settled = loop.time() + min(CLOSE_NOTICE_S, self.service.settings.grace_s)
        while self.server_state.connections and loop.time() < settled and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
