"""Answers that leave in one piece.

uvicorn writes the head and the body of an answer one after the other, each with a system call and a packet of its own.
A process that is killed in between leaves half an answer, which no proxy can ask another replica for any more.
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST_BYTES = 65_536
"""What is gathered before it is sent even within one turn of the event loop."""


class BufferedTransport:
    """A transport that sends what is written within one turn of the event loop together.

    Args:
        transport: sends; everything else is asked of it, too.
        loop: whose turns count.
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
        if self._bytes > MOST_BYTES:
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
