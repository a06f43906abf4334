"""The service as a child process, for programs that need one such as `lensmith demo`; standard library only."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Any

from lensmith.errors import ServiceError

START_TIMEOUT_S = 60.0
"""Seconds that the child may take until it is ready."""


@dataclass(frozen=True)
class ServiceProcess:
    """A running `lensmith serve`; as a context manager it is stopped at the end.

    Attributes:
        url: the service's URL, without a slash at the end.
        process: the child process.
    """

    url: str
    process: subprocess.Popen[str]

    def stop(self, timeout_s: float = 30.0) -> int:
        """Shut it down gracefully (SIGTERM), kill it after `timeout_s` seconds, and return its exit code."""
        self.process.terminate()
        return _end(self.process, timeout_s)

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_service(bundle: str | os.PathLike[str], port: int = 0, **settings: Any) -> ServiceProcess:
    """Start `lensmith serve BUNDLE` as a child process, and wait until it is ready and announces its address.

    Args:
        bundle: folder or zip.
        port: port to listen on; 0 picks a free one.
        settings: other fields of `ServeSettings`.

    Raises:
        ServiceError: the child ended, or was not ready within START_TIMEOUT_S; with what it wrote to standard error.
    """
    given = {"port": port, **settings}
    flags = [
        f"--{name.replace('_', '-')}"
        + ("" if value is True else f"={','.join(value) if isinstance(value, tuple) else value}")
        for name, value in given.items()
        if value is not False
    ]
    deadline = time.monotonic() + START_TIMEOUT_S
    with tempfile.TemporaryFile(
        "w+", errors="replace"
    ) as log:  # a pipe that nobody reads would fill up and stop the child
        process = subprocess.Popen(
            [sys.executable, "-m", "lensmith", "serve", os.fspath(bundle), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            errors="replace",
        )
        try:
            url = _announced(process, deadline)
            if url is None:
                raise _not_started(os.fspath(bundle), process, log)
        except BaseException:
            _end(process)
            raise
    return ServiceProcess(url, process)


def _announced(process: subprocess.Popen[str], deadline: float) -> str | None:
    """The address in the line that the child prints when it is ready; None where it ends or takes too long."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
    line = process.stdout.readline() if readable else ""
    return line.split()[-1] if line else None


def _not_started(bundle: str, process: subprocess.Popen[str], log: IO[str]) -> ServiceError:
    try:
        state = f"It ended with exit code {process.wait(1.0)}"
    except subprocess.TimeoutExpired:
        state = f"It was not ready within {START_TIMEOUT_S:.0f} s"
    log.seek(0)
    message = log.read().strip().removeprefix("lensmith: ")
    return ServiceError(
        f"The service for {bundle} was expected to start.",
        f"{state}, with this message: {message}" if message else f"{state}.",
        f"Run it by itself to see more: lensmith serve {bundle} --debug",
    )


def _end(process: subprocess.Popen[str], timeout_s: float = 0.0) -> int:
    """Wait for the end, kill it after `timeout_s` seconds, and close the pipe."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return process.returncode
