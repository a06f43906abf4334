"""A server as a child process: its start-up time and memory; it is certainly stopped at the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from contestants.footprint import Footprint
from lensmith.ops.loadtest.target import Target

from .contenders import Contender
from .environment import UnavailableError
from .model import Model

START_TIMEOUT_S = 120.0
RECOVERY_S = 30.0
QUICK_S = 0.2


@dataclass
class Running:
    """A server that answers.

    Attributes:
        target: address of the server.
        requests: requests to send, one per image.
        startup_s: seconds from the start of the process to the first 200.
        footprint: watcher of its processes' memory; shared pages count once.
        answers: class ID and confidence of each image.
    """

    target: Target
    requests: Sequence[bytes]
    startup_s: float
    footprint: Footprint
    answers: list[tuple[int, float]]

    def recover(self) -> float:
        """Seconds until a single request is answered within QUICK_S; RECOVERY_S if it never is."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < RECOVERY_S:
            asked = time.monotonic()
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _post(self.target, self.requests[0], 5)[0] == 200 and time.monotonic() - asked < QUICK_S:
                    return waited
            time.sleep(0.05)
        return RECOVERY_S


@contextmanager
def started(contender: Contender, model: Model, images: Sequence[bytes]) -> Iterator[Running]:
    """Start a server, and stop it with all its children.

    Raises:
        UnavailableError: it cannot be installed, or does not answer.
    """
    target = Target("127.0.0.1", _free_port(), contender.path)
    requests = contender.requests(target, images)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        command = list(map(str, contender.command(model, target.port, Path(folder) / "own")))
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=contender.environment(model), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            with Footprint(process.pid) as footprint:
                if not _answers(target, requests[0], process):
                    log.seek(0)
                    output = " ".join(log.read().split())[-300:]
                    raise UnavailableError(f"it did not start: {output}")
                startup_s = time.perf_counter() - began
                answers = [_answer(contender, _post(target, each, 30)[1]) for each in requests]
                yield Running(target, requests, startup_s, footprint, answers)
        finally:
            _stop(process)


def _answer(contender: Contender, body: bytes) -> tuple[int, float]:
    try:
        found = contender.unpack(json.loads(body))
        return int(found["class_id"]), float(found["confidence"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UnavailableError(f"it answered {body[:200]!r}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(target: Target, request: bytes, process: subprocess.Popen[bytes]) -> bool:
    ends = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _post(target, request, 5)[0] == 200:
                return True
        time.sleep(0.05)
    return False


def _post(target: Target, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    with socket.create_connection((target.host, target.port), timeout_s) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    _, alive = psutil.wait_procs(family, timeout=3)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait()
