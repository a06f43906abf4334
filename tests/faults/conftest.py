"""Services to be broken, and a cheap client that says what became of each of its requests.

What these tests do is sized for CI; LENSMITH_FAULTS=full does all of it. Figures are printed (`pytest -rP`).
"""

import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import numpy as np
import psutil
import pytest

from lensmith.bundle.format import Bundle
from lensmith.serving.child_process import ServiceProcess, start_service


@pytest.fixture(scope="session")
def sized() -> Callable[[int, int], int]:
    """`sized(for_ci, full)`: how much to do."""
    full = os.environ.get("LENSMITH_FAULTS") == "full"
    return lambda for_ci, in_full: in_full if full else for_ci


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`figures(name=value, ...)` prints what was measured."""
    return lambda **found: print(f"{request.node.name}: {json.dumps(found, default=str)}")


@pytest.fixture
def serve(colour_bundle: Bundle) -> Iterator[Callable[..., ServiceProcess]]:
    """`serve(**settings)`: a service for the colours, patient unless told otherwise, as other tests keep cores busy."""
    with ExitStack() as stack:

        def start(**settings: Any) -> ServiceProcess:
            patient = {"deadline_ms": 20_000, "threads": 2, "batching": "off"}
            return stack.enter_context(start_service(colour_bundle.path, **{**patient, **settings}))

        yield start


@pytest.fixture(scope="session")
def picture(shared_colours: Path) -> bytes:
    """A red JPEG of about a kilobyte."""
    return (shared_colours / "red" / "001.jpg").read_bytes()


class Connection:
    """One kept connection, opened anew where the service asked to close it. Standard sockets, next to no work."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        address = urlsplit(url)
        self._address = (str(address.hostname), int(address.port or 80))
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    @property
    def open(self) -> bool:
        return self._socket is not None

    def connect(self) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body.

        Raises:
            OSError: the connection could not be had, or was lost before the whole answer.
        """
        self.connect()
        assert self._socket is not None
        try:
            self._socket.sendall(request)
            received = b""
            while (end := received.find(b"\r\n\r\n")) < 0:
                received += self._more()
            head = received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = received[end + 4 :]
            while len(body) < int(headers.get("content-length", 0)):
                body += self._more()
        except BaseException:
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        return int(head[0].split()[1]), headers, body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _more(self) -> bytes:
        assert self._socket is not None
        if found := self._socket.recv(65_536):
            return found
        raise ConnectionError("closed before the whole answer")


SECRET = "a secret of these tests, 32 bytes or more"
CLAIMS = {"sub": "test", "iss": "lensmith", "aud": "lensmith", "exp": int(time.time()) + 7200, "scope": "predict admin"}
TOKEN = f"Authorization: Bearer {jwt.encode(CLAIMS, SECRET)}"
"""Sent with every request; a service without authentication does not look at it."""


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that are started in this test ask for tokens."""
    monkeypatch.setenv("LENSMITH_JWT_SECRET", SECRET)


def post(body: bytes, path: str = "/predict", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", TOKEN, f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TOKEN}\r\n\r\n".encode()


@dataclass
class Outcome:
    """What became of requests.

    Attributes:
        statuses: how many of each.
        lost: requests that were sent and never answered, with the reason.
        refused: connections that could not be had; nothing was sent.
        latency_s: of each answer.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    latency_s: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.statuses.total()

    def p99_ms(self) -> float:
        return float(np.percentile(self.latency_s, 99)) * 1000


class Load:
    """Clients that each send their next request when the last is answered, in threads, until told to stop.

    Args:
        url: the service.
        request: whole, as bytes.
        clients: connections.
        most: requests of all together; None: until stopped.
        patient: clients come again where a connection is refused; otherwise they go home.
    """

    def __init__(self, url: str, request: bytes, clients: int = 8, most: int | None = None, patient: bool = False):
        self.outcome = Outcome()
        self._url, self._request, self._left, self._patient = url, request, most, patient
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.wait()

    def wait(self, timeout_s: float = 300.0) -> Outcome:
        for each in self._threads:
            each.join(timeout_s)
            assert not each.is_alive(), "a client waits for ever"
        return self.outcome

    def stop(self) -> Outcome:
        self._stopping.set()
        return self.wait()

    def until(self, answered: int, timeout_s: float = 120.0) -> None:
        """Wait for so many answers."""
        end = time.monotonic() + timeout_s
        while self.outcome.answered < answered and any(each.is_alive() for each in self._threads):
            assert time.monotonic() < end, f"{self.outcome.answered} of {answered} answers: {self.outcome.lost[:3]}"
            time.sleep(0.01)

    def _client(self) -> None:
        connection, outcome = Connection(self._url), self.outcome
        while not self._stopping.is_set():
            with self._lock:
                if self._left is not None:
                    if self._left == 0:
                        break
                    self._left -= 1
            try:
                connection.connect()
            except ConnectionError:
                with self._lock:
                    outcome.refused += 1
                    if self._left is not None:
                        self._left += 1
                if not self._patient:
                    return
                time.sleep(0.01)
                continue
            started = time.perf_counter()
            try:
                status, _, _ = connection.ask(self._request)
            except OSError as error:
                with self._lock:
                    outcome.lost.append(repr(error))
            else:
                with self._lock:
                    outcome.statuses[status] += 1
                    outcome.latency_s.append(time.perf_counter() - started)
        connection.close()


@pytest.fixture(scope="session")
def load() -> type[Load]:
    """`with load(url, request) as clients: ...`, then `clients.outcome`."""
    return Load


@pytest.fixture(scope="session")
def predict(picture: bytes) -> bytes:
    """A request to classify the red picture."""
    return post(picture)


@pytest.fixture(scope="session")
def ask() -> Callable[..., tuple[int, dict[str, str], bytes]]:
    """`ask(url, "/readyz")` or `ask(url, "/predict", body, *headers)`, on a connection of its own."""

    def send(url: str, path: str, body: bytes | None = None, *headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = Connection(url)
        try:
            return connection.ask(get(path) if body is None else post(body, path, *headers))
        finally:
            connection.close()

    return send


@dataclass(frozen=True)
class Usage:
    """What a process holds now."""

    rss_mb: float
    files: int
    threads: int


@pytest.fixture(scope="session")
def usage() -> Callable[[int], Usage]:
    """`usage(pid)`: memory, open files and threads of a process."""

    def look(pid: int) -> Usage:
        process = psutil.Process(pid)
        return Usage(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())

    return look


@pytest.fixture(scope="session")
def sample(ask: Callable[..., tuple[int, dict[str, str], bytes]]) -> Callable[..., float]:
    """`sample(url, "lensmith_requests_total", route="/predict")`: the sum of the series with these labels."""

    def read(url: str, name: str, **labels: str) -> float:
        found = 0.0
        for line in ask(url, "/metrics")[2].decode().splitlines():
            series = re.fullmatch(r"([a-z_]+)(\{.*\})? (\S+)", line)
            if series and series[1] == name and all(f'{k}="{v}"' in (series[2] or "") for k, v in labels.items()):
                found += float(series[3])
        return found

    return read


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(condition)`: wait until it holds; it fails where that takes minutes."""

    def wait(condition: Callable[[], Any], timeout_s: float = 120.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.02)

    return wait
