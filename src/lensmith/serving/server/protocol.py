"""HTTP/1.1 connections with limits on the head of a request (its size, its time), and write buffering of answers.

uvicorn with httptools limits neither: a header of 50 MB was parsed for 6 s, in which nobody else was answered, and a
connection on which nothing is sent stayed open for ever. And it writes the head and the body of an answer one after the
other, each with a system call and a packet of its own: a process that is killed in between leaves half an answer, for
which no proxy can ask another replica any more.

An offer to upgrade to another protocol (h2c by every stock Java client, WebSocket) is ignored, as RFC 9110, 7.8 allows.
httptools ends the message at such a header: the body, and every later request on the connection, would be lost.
"""

import asyncio
import sys
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
"""Bytes of a request's address and headers together. What is sent beside a body (trailers, chunk sizes) may take as
much, plus the body's own length."""
HEAD_S = 20.0
"""Seconds in which a head must arrive: from the connection, or on a keep-alive one from the head's first byte."""
MAX_BUFFERED_BYTES = 65_536
"""Bytes that are buffered at most; beyond, they are sent within the same iteration of the event loop."""

_OFFER = frozenset({b"upgrade", b"http2-settings"})
"""Headers of an offer to upgrade, which also stand in `Connection`."""
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


_PROXY = "The PROXY protocol arrived. Turn it off in the balancer, which can send X-Forwarded-For"
_OTHER_PROTOCOLS = {
    b"\x16\x03": "TLS arrived. Use http://, or put a proxy that ends TLS in front",
    b"PRI * HTTP/2.0": "HTTP/2 arrived. Use HTTP/1.1, or put a proxy that speaks both in front",
    b"PROXY ": _PROXY,
    b"\r\n\r\n\x00\r\nQUIT\n": _PROXY,
}
"""First bytes of a connection → what they are."""
_LONGEST_FIRST = max(map(len, _OTHER_PROTOCOLS))


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


class UpgradeIgnoringParser:
    """httptools' parser that reads a head with an offer to upgrade again, without the offer.

    Args:
        protocol: receiver of the callbacks; it must ignore `on_headers_complete` and `on_message_complete` while
            `offers_upgrade` is true, which is the first reading. Its `headers` and `url` are those of the request.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._parser = _parser_for(protocol)

    def offers_upgrade(self) -> bool:
        """Whether the head that was read offers to upgrade; CONNECT, which names no path, is left to uvicorn."""
        return bool(self._parser.should_upgrade()) and self._parser.get_method() != b"CONNECT"

    def feed_data(self, data: bytes) -> None:
        """See httptools."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self.offers_upgrade():
                    raise
                data = self._head_without_offer() + data[upgrade.args[0] :]
                self._parser = _parser_for(self._protocol)

    def _head_without_offer(self) -> bytes:
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self._protocol.url, version)]
        for name, value in self._protocol.headers:
            if name == b"connection":
                options = [each.strip() for each in value.split(b",")]
                value = b", ".join(each for each in options if each.lower() not in _OFFER)
            if name not in _OFFER:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _parser_for(protocol: HttpToolsProtocol) -> Any:
    parser = httptools.HttpRequestParser(protocol)
    if hasattr(parser, "set_dangerous_leniencies"):  # as uvicorn has it
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits on the head of a request. For `uvicorn.Config(http=...)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser: Any = UpgradeIgnoringParser(self)
        # Bytes since the last head or body ended, or since the body that is arriving allowed more.
        self._beside_body = 0
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._first = b""  # bytes of the connection

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
        if len(self._first) < _LONGEST_FIRST:
            self._first += data[:_LONGEST_FIRST]
        self._beside_body += len(data)
        if self._in_head and self._timer is None:
            self._timer = self.loop.call_later(HEAD_S, self.transport.close)
        super().data_received(data)
        if self._beside_body > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn, whose own names no cause."""
        cause = next((text for first, text in _OTHER_PROTOCOLS.items() if self._first.startswith(first)), None)
        if cause is None:
            error = sys.exception()
            said = str((error and error.__context__) or error)[:200].encode("ascii", "replace").decode().rstrip(".")
            cause = f"What arrived is none: {said}. A body needs a Content-Length, or Transfer-Encoding: chunked"
        super().send_400_response(f"An HTTP/1.1 request was expected. {cause}.\n")

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self.parser.offers_upgrade():
            return
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
        if self.parser.offers_upgrade():
            return
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
