"""Write buffering: the head and body of an answer leave in one piece.

uvicorn writes the head and the body of an answer one after the other, each with a system call and a packet of its own.
A process that is killed in between leaves half an answer, for which no proxy can ask another replica any more.
"""

import asyncio
from typing import Any

MAX_BYTES = 65_536
"""Bytes that are buffered at most; beyond, they are sent within the same iteration of the event loop."""


class BufferedTransport:
    """A transport that sends together what is written within one iteration of the event loop.

    Args:
        transport: the transport that sends, and has all other methods.
        loop: the event loop.
    """

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
        if self._bytes > MAX_BYTES:
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
