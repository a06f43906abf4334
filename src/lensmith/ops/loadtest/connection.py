"""A persistent HTTP connection with at most one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools


class ConnectionListener(Protocol):
    """Receiver of a connection's events."""

    def answered(self, connection: Connection, status: int) -> None:
        """Called when a complete answer has arrived; the connection can be used again, unless it is closing."""

    def lost(self, connection: Connection) -> None:
        """Called when the connection is closed; a request on it gets no answer."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 over one socket.

    Attributes:
        due_s: due time of the current request, in seconds of the clock.
        sent_s: sending time of the current request, in seconds of the clock.
        busy: whether a request awaits its answer.
        closing: whether the service announced that it will close the connection.
    """

    def __init__(self, listener: ConnectionListener, clock: Callable[[], float]) -> None:
        self._listener, self._clock = listener, clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.due_s = self.sent_s = 0.0
        self.busy = self.closing = False

    def send(self, request: bytes, due_s: float) -> None:
        """Send a request that was due at `due_s`."""
        assert self._transport is not None
        self.due_s, self.busy = due_s, True
        self.sent_s = self._clock()
        self._transport.write(request)

    def close(self) -> None:
        """Close the connection at once, even during a request."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self._listener.lost(self)

    def on_message_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if status < 200 or not self.busy:  # an interim response, or one without a request
            return
        self.busy = False
        self.closing = not self._parser.should_keep_alive()
        self._listener.answered(self, status)
