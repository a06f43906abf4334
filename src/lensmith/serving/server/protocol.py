"""HTTP/1.1 connections with limits on the head of a request (its size, its time), and write buffering of answers.

uvicorn with httptools limits neither: a header of 50 MB was parsed for 6 s, in which nobody else was answered, and a
connection on which nothing is sent stayed open for ever. And it writes the head and the body of an answer one after the
other, each with a system call and a packet of its own: a process that is killed in between leaves half an answer, for
which no proxy can ask another replica any more.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
"""Bytes of a request's address and headers together. What is sent beside a body (trailers, chunk sizes) may take as
much, plus the body's own length."""
HEAD_S = 20.0
"""Seconds in which a head must arrive: from the connection, or on a keep-alive one from the head's first byte."""
MAX_BUFFERED_BYTES = 65_536
"""Bytes that are buffered at most; beyond, they are sent within the same iteration of the event loop."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BufferedTransport:
    """A transport that sends together what is written within one iteration of the event loop, through another."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """See asyncio."""
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes > MAX_BUFFERED_BYTES:
            self._send()

    def close(self) -> None:
        """See asyncio."""
        self._send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send(self) -> None:
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits on the head of a request. For `uvicorn.Config(http=...)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Bytes since the last head or body ended, or since the body that is arriving allowed more.
        self._beside_body = 0
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(BufferedTransport(transport, self.loop))  # type: ignore[arg-type]
        self._timer = self.loop.call_later(HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._beside_body += len(data)
        if self._in_head and self._timer is None:
            self._timer = self.loop.call_later(HEAD_S, self.transport.close)
        super().data_received(data)
        if self._beside_body > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._stop_timer()
        self._in_head = False
        self._beside_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._beside_body -= 2 * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._stop_timer()
        self._in_head = True
        self._beside_body = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        # A request refused before its body had arrived: the rest of the body is read for a while, so that the client
        # reads the refusal, but not for ever.
        if not self._in_head and self.cycle.response_complete and not self.transport.is_closing():
            self._stop_timer()
            self._timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
