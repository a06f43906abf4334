"""One kept connection with at most one request on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools


class Owner(Protocol):
    """Who hears what becomes of a connection."""

    def answered(self, connection: Connection, status: int) -> None:
        """The answer to its request has arrived whole; it may be used again, unless it is closing."""

    def lost(self, connection: Connection) -> None:
        """It is closed; a request that was on it is not answered."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 over one socket.

    Attributes:
        due_s: when the request on it was due.
        sent_s: when it was sent.
        busy: a request is on it.
        closing: the service said that this was its last answer.
    """

    def __init__(self, owner: Owner, clock: Callable[[], float]) -> None:
        self._owner, self._clock = owner, clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.due_s = self.sent_s = 0.0
        self.busy = self.closing = False

    def send(self, request: bytes, due_s: float) -> None:
        """Send it; `due_s` is when that should have happened."""
        assert self._transport is not None
        self.due_s, self.busy = due_s, True
        self.sent_s = self._clock()
        self._transport.write(request)

    def close(self) -> None:
        """Close it at once, whatever is on it."""
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
        self._owner.lost(self)

    def on_message_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if status < 200 or not self.busy:  # what comes before the answer proper, or unasked
            return
        self.busy = False
        self.closing = not self._parser.should_keep_alive()
        self._owner.answered(self, status)
