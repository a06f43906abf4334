"""Requests sent by a load's rule from one event loop, and what became of each.

The client often shares its machine with the service, so what it does for each request is little: the bytes are ready,
an answer is parsed but not looked at, and nothing is computed before the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from lensmith.ops.loadtest.connection import Connection
from lensmith.ops.loadtest.record import CONNECTION, MOST_REQUESTS, TIMEOUT, Record
from lensmith.ops.loadtest.schedule import Load
from lensmith.ops.loadtest.target import Target

TICK_S = 0.02
"""How often the client looks how late its own clock is."""
LOOK_S = 0.1
"""How often it looks for requests to give up."""
EARLY_S = 0.0005
"""Timers count milliseconds: what is due within half of one is sent now, and its latency counts from then."""
RETRY_S = (0.02, 1.0)
"""First and longest pause of a closed load's client before it tries to connect again."""
CONNECT_TIMEOUT_S = 5.0


def drive(
    target: Target, requests: Sequence[bytes], load: Load, every_second: Callable[[], object] = lambda: None
) -> Record:
    """Put a service under load, and return what became of each request.

    Ends when the last request has its answer or is given up: `load.timeout_s` after the last one was due at the
    latest. Ctrl-C ends it at once, and what is under way is forgotten.

    Args:
        target: where to.
        requests: sent in turn, over and over.
        load: how.
        every_second: called about once a second.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_drive(target, requests, load, every_second))


def ask(target: Target, request: bytes, timeout_s: float) -> Record:
    """Send one request, and return what became of it."""
    # An open load of which one request is due, at once.
    return drive(target, [request], Load(1.5e-4, clients=1, rate=1e4, arrivals="constant", timeout_s=timeout_s))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:  # there is none for Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _drive(target: Target, requests: Sequence[bytes], load: Load, every_second: Callable[[], object]) -> Record:
    loop = asyncio.get_running_loop()
    client = _Client(loop, target, requests, load)
    interruptible = threading.current_thread() is threading.main_thread()
    if interruptible:
        with contextlib.suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(signal.SIGINT, client.interrupt)
    try:
        return await client.run(every_second)
    finally:
        if interruptible:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)


class _Client:
    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target, requests: Sequence[bytes], load: Load) -> None:
        self._loop, self._target, self._load = loop, target, load
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._tls = ssl.create_default_context() if target.tls else None
        self._open_load = load.rate is not None
        self._due = load.due() if self._open_load else iter(())
        self._next_due = next(self._due, None)
        self._started = time.perf_counter()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the one used last is used first, so that few are kept busy
        self._waiting: deque[float] = deque()  # requests that are due and have no connection
        self._connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = True
        self._record = Record()

    async def run(self, every_second: Callable[[], object]) -> Record:
        load, record = self._load, self._record
        for _ in range(min(load.clients, 16) if self._open_load else load.clients):
            self._spawn(self._connect())
        if self._open_load:
            self._arrive()
        cpu_before, next_second, next_look, expected = time.process_time(), 1.0, 0.0, self._now()
        warm = load.warmup_s == 0
        while not record.interrupted:
            expected += TICK_S
            await asyncio.sleep(max(0.0, expected - self._now()))
            now = self._now()
            if self._sending and now >= load.warmup_s:
                if not warm:
                    warm, cpu_before = True, time.process_time()
                record.lags_s.append(max(0.0, now - expected))
            expected = max(expected, now - TICK_S)
            if now >= next_look:
                self._give_up(now)
                next_look = now + LOOK_S
            if now >= next_second:
                every_second()
                next_second += 1.0
            if self._sending and (now >= load.total_s or len(record.outcome) >= MOST_REQUESTS):
                self._stop_sending(now, cpu_before)
            if not self._sending and (self._settled() or now > record.ended_s + load.timeout_s + 1.0):
                break
        if self._sending:
            self._stop_sending(self._now(), cpu_before)
        self._close()
        return record

    def interrupt(self) -> None:
        self._record.interrupted = True

    def answered(self, connection: Connection, status: int) -> None:
        now = time.perf_counter() - self._started
        due = connection.due_s if connection.due_s < connection.sent_s else connection.sent_s
        self._record.add(due, now - due, now - connection.sent_s, status)
        if connection.closing:
            connection.close()
        else:
            self._use(connection)

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.busy:
            self._fail(connection.due_s, connection.sent_s, CONNECTION)
        if self._wanted():
            self._spawn(self._connect())

    def _use(self, connection: Connection) -> None:
        """Send the next request on it, where there is one."""
        if not self._open_load:
            if self._sending:
                connection.send(next(self._requests), time.perf_counter() - self._started)
        elif self._waiting:
            connection.send(next(self._requests), self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _arrive(self) -> None:
        """Send what is due, and come back when the next is."""
        now = self._now()
        while self._next_due is not None and self._next_due <= now + EARLY_S and self._sending:
            if self._idle:
                self._idle.pop().send(next(self._requests), self._next_due)
            else:
                self._waiting.append(self._next_due)
                if len(self._connections) + self._connecting < self._load.clients:
                    self._spawn(self._connect())
            self._next_due = next(self._due, None)
        if self._next_due is not None and self._sending:
            self._loop.call_later(self._next_due - now, self._arrive)

    async def _connect(self) -> None:
        pause_s = RETRY_S[0]
        self._connecting += 1
        try:
            while True:
                try:
                    async with asyncio.timeout(min(CONNECT_TIMEOUT_S, self._load.timeout_s)):
                        _, connection = await self._loop.create_connection(
                            lambda: Connection(self, self._now), self._target.host, self._target.port, ssl=self._tls
                        )
                except (OSError, TimeoutError) as error:
                    self._record.problem = str(error) or "no connection in time"
                    if self._open_load:
                        if self._waiting:
                            self._fail(self._waiting.popleft(), self._now(), CONNECTION)
                        return
                    if not self._sending:
                        return
                    self._fail(self._now(), self._now(), CONNECTION)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RETRY_S[1])
                else:
                    break
        finally:
            self._connecting -= 1
        self._connections.add(connection)
        self._use(connection)

    def _wanted(self) -> bool:
        """Whether a connection that was lost is to be replaced."""
        return bool(self._waiting) if self._open_load else self._sending

    def _give_up(self, now: float) -> None:
        latest = now - self._load.timeout_s
        while self._waiting and self._waiting[0] < latest:
            self._fail(self._waiting.popleft(), now, TIMEOUT)
        for connection in [each for each in self._connections if each.busy and each.due_s < latest]:
            connection.busy = False
            self._fail(connection.due_s, connection.sent_s, TIMEOUT)
            connection.close()

    def _fail(self, due_s: float, sent_s: float, outcome: int) -> None:
        now = self._now()
        self._record.add(due_s, now - due_s, now - sent_s, outcome)

    def _stop_sending(self, now: float, cpu_before: float) -> None:
        self._sending = False
        self._record.cpu_s = time.process_time() - cpu_before
        self._record.ended_s = min(now, self._load.total_s)

    def _settled(self) -> bool:
        return not self._waiting and not any(connection.busy for connection in self._connections)

    def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            connection.busy = False
            connection.close()
        self._waiting.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    def _now(self) -> float:
        return time.perf_counter() - self._started
