"""HTTP/1.1 connections with limits on the head of a request: its size, and the time in which it arrives.

uvicorn with httptools limits neither: a header of 50 MB was parsed for 6 s, in which nobody else was answered, and a
connection on which nothing is sent stayed open for ever.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lensmith.serving.server.write_buffer import BufferedTransport

MAX_HEAD_BYTES = 65_536
"""Bytes of a request's address and headers together. What is sent beside a body (trailers, chunk sizes) may take as
much, plus the body's own length."""
HEAD_S = 20.0
"""Seconds in which a head must arrive: from the connection, or on a keep-alive one from the head's first byte."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


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
