"""A small real HTTP server with scripted answers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest


@dataclass(frozen=True)
class Answer:
    """The server's reaction to a request.

    Attributes:
        status: HTTP status; 0 closes the connection without an answer, -1 never answers.
        stall_s: seconds for which the whole server stalls first.
        wait_s: seconds for which only this request waits.
        close: whether the connection is closed after the answer.
    """

    status: int = 200
    stall_s: float = 0.0
    wait_s: float = 0.0
    close: bool = False


@dataclass
class Server:
    """A running server with the requests that it received."""

    url: str = ""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0


ServerOf = Callable[[Callable[[int], Answer]], Server]


@contextmanager
def running(answer: Callable[[int], Answer]) -> Iterator[Server]:
    server, ready, loop = Server(), threading.Event(), asyncio.new_event_loop()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].split()[0])
                server.heads.append(head)
                server.bodies.append(await reader.readexactly(length))
                now = answer(len(server.heads))
                time.sleep(now.stall_s)
                await asyncio.sleep(now.wait_s)
                if now.status == 0:
                    return
                if now.status == -1:
                    await asyncio.sleep(60)
                ending = "Connection: close\r\n" if now.close else ""
                writer.write(f"HTTP/1.1 {now.status} Told\r\n{ending}Content-Length: 2\r\n\r\n{{}}".encode())
                await writer.drain()
                if now.close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        listening = await asyncio.start_server(talk, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def server_of() -> Iterator[ServerOf]:
    """`server_of(lambda number: answer(status=...))`: what to do with the first, second … request."""
    stack = []

    def start(answer: Callable[[int], Answer]) -> Server:
        context = running(answer)
        stack.append(context)
        return context.__enter__()

    yield start
    for context in stack:
        context.__exit__(None, None, None)


@pytest.fixture
def answer() -> type[Answer]:
    return Answer
