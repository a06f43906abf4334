"""Load-test client: sends requests by a load profile from one event loop, and logs the outcome of each.

The client often shares its machine with the service, so it does little for each request: the bytes are ready, an answer
is parsed but not inspected, and nothing is computed before the end.
"""

import asyncio
import contextlib
import itertools
import signal
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from lensmith.ops.loadtest.connection import Connection
from lensmith.ops.loadtest.load_profile import LoadProfile
from lensmith.ops.loadtest.request_log import CONNECTION, MAX_REQUESTS, TIMEOUT, RequestLog
from lensmith.ops.loadtest.target import Target

TICK_S = 0.02
"""Interval at which the client checks the delay of its own clock."""
TIMEOUT_CHECK_S = 0.1
"""Interval at which the client looks for requests that time out."""
EARLY_S = 0.0005
"""Timers have a resolution of 1 ms: a request due within half of that is sent now, and its latency counts from now."""
RETRY_S = (0.02, 1.0)
"""First and longest pause, with a closed loop, before a connection is tried again."""
CONNECT_TIMEOUT_S = 5.0


def send_load(
    target: Target, requests: Sequence[bytes], load: LoadProfile, every_second: Callable[[], object] = lambda: None
) -> RequestLog:
    """Put a service under load, and return the log of all requests.

    It ends when the last request has its answer or times out: at the latest `load.timeout_s` after the last due time.
    Ctrl-C ends it at once, without the requests that await their answers. The requests are sent in turn, over and over;
    `every_second` is called about once a second.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_send_load(target, requests, load, every_second))


def send_one_request(target: Target, request: bytes, timeout_s: float) -> RequestLog:
    """Send one request, and return its log."""
    # An open loop with a single request, which is due at once.
    load = LoadProfile(1.5e-4, clients=1, rate=1e4, arrivals="constant", timeout_s=timeout_s)
    return send_load(target, [request], load)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:  # not available on Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _send_load(
    target: Target, requests: Sequence[bytes], load: LoadProfile, every_second: Callable[[], object]
) -> RequestLog:
    loop = asyncio.get_running_loop()
    client = _Client(loop, target, requests, load)
    refusals = (NotImplementedError, RuntimeError, ValueError)  # on Windows; not in the main thread
    with contextlib.suppress(*refusals):
        loop.add_signal_handler(signal.SIGINT, client.interrupt)
    try:
        return await client.run(every_second)
    finally:
        with contextlib.suppress(*refusals):
            loop.remove_signal_handler(signal.SIGINT)  # a uvloop that is closed would still swallow Ctrl-C


class _Client:
    """One load test in progress; the listener of its connections."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, target: Target, requests: Sequence[bytes], load: LoadProfile
    ) -> None:
        self._loop, self._target, self._load = loop, target, load
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._tls = ssl.create_default_context() if target.tls else None
        self._open_loop = load.rate is not None
        self._due_times = load.due_times() if self._open_loop else iter(())
        self._next_due = next(self._due_times, None)
        self._started = time.perf_counter()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # a stack, so that few connections are used
        self._waiting: deque[float] = deque()  # due times of requests without a connection
        self._connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = True
        self._log = RequestLog()

    async def run(self, every_second: Callable[[], object]) -> RequestLog:
        """Send the whole load."""
        load, log = self._load, self._log
        for _ in range(min(load.clients, 16) if self._open_loop else load.clients):
            self._spawn(self._connect())
        if self._open_loop:
            self._send_due()
        cpu_before, next_second, next_check, expected = time.process_time(), 1.0, 0.0, self._now()
        warm = load.warmup_s == 0
        while not log.interrupted:
            expected += TICK_S
            await asyncio.sleep(max(0.0, expected - self._now()))
            now = self._now()
            if self._sending and now >= load.warmup_s:
                if not warm:
                    warm, cpu_before = True, time.process_time()
                log.lags_s.append(max(0.0, now - expected))
            expected = max(expected, now - TICK_S)
            if now >= next_check:
                self._time_out(now)
                next_check = now + TIMEOUT_CHECK_S
            if now >= next_second:
                every_second()
                next_second += 1.0
            if self._sending and (now >= load.total_s or len(log.outcome) >= MAX_REQUESTS):
                self._stop_sending(now, cpu_before)
            if not self._sending:
                unanswered = self._waiting or any(connection.busy for connection in self._connections)
                if not unanswered or now > log.ended_s + load.timeout_s + 1.0:
                    break
        if self._sending:
            self._stop_sending(self._now(), cpu_before)
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            connection.busy = False
            connection.close()
        self._waiting.clear()
        return log

    def interrupt(self) -> None:
        """Stop at once."""
        self._log.interrupted = True

    def answered(self, connection: Connection, status: int) -> None:
        """Log an answer, and use its connection again."""
        now = time.perf_counter() - self._started
        due = connection.due_s if connection.due_s < connection.sent_s else connection.sent_s
        self._log.add(due, now - due, now - connection.sent_s, status)
        if connection.closing:
            connection.close()
        else:
            self._use(connection)

    def lost(self, connection: Connection) -> None:
        """Log the request on a closed connection, and replace the connection."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.busy:
            self._fail(connection.due_s, connection.sent_s, CONNECTION)
        if self._waiting or (self._sending and not self._open_loop):
            self._spawn(self._connect())

    def _use(self, connection: Connection) -> None:
        """Send the next request on a free connection, if there is one."""
        if not self._open_loop:
            if self._sending:
                connection.send(next(self._requests), time.perf_counter() - self._started)
        elif self._waiting:
            connection.send(next(self._requests), self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _send_due(self) -> None:
        """Send the requests that are due, and schedule this function for the next due time."""
        now = self._now()
        while self._next_due is not None and self._next_due <= now + EARLY_S and self._sending:
            if self._idle:
                self._idle.pop().send(next(self._requests), self._next_due)
            else:
                self._waiting.append(self._next_due)
                if len(self._connections) + self._connecting < self._load.clients:
                    self._spawn(self._connect())
            self._next_due = next(self._due_times, None)
        if self._next_due is not None and self._sending:
            self._loop.call_later(self._next_due - now, self._send_due)

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
                    self._log.problem = str(error) or "no connection in time"
                    if self._open_loop:
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

    def _time_out(self, now: float) -> None:
        latest = now - self._load.timeout_s
        while self._waiting and self._waiting[0] < latest:
            self._fail(self._waiting.popleft(), now, TIMEOUT)
        for connection in [each for each in self._connections if each.busy and each.due_s < latest]:
            connection.busy = False
            self._fail(connection.due_s, connection.sent_s, TIMEOUT)
            connection.close()

    def _fail(self, due_s: float, sent_s: float, outcome: int) -> None:
        now = self._now()
        self._log.add(due_s, now - due_s, now - sent_s, outcome)

    def _stop_sending(self, now: float, cpu_before: float) -> None:
        self._sending = False
        self._log.cpu_s = time.process_time() - cpu_before
        self._log.ended_s = min(now, self._load.total_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself has only weak references to tasks
        task.add_done_callback(self._tasks.discard)

    def _now(self) -> float:
        return time.perf_counter() - self._started
