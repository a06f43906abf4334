"""MLflow's own pages: runs `mlflow server` on this machine until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from http.client import HTTPException
from typing import IO
from urllib.request import ProxyHandler, build_opener

from lensmith.config import TrackSettings
from lensmith.core.machine import is_loopback
from lensmith.errors import RegistryError, ServiceError
from lensmith.registry import client
from lensmith.registry.mlflow_errors import shown
from lensmith.tracking.address import require_installed

START_S, STOP_S = 90.0, 10.0
ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""No processes for MLflow's own jobs."""


def ui(settings: TrackSettings) -> None:
    """Serve the pages, and the tracking server behind them, until Ctrl-C.

    Raises:
        RegistryError: the tracking URI is a server already, or there is no location for artifacts.
        ServiceError: the port is taken, or MLflow's server ended.
        MissingPackageError: MLflow is not installed.
    """
    require_installed()
    uri = client.uri()
    if uri.startswith("http"):
        raise RegistryError(
            "A database was expected whose runs can be shown.",
            f"{shown(uri)} is a tracking server.",
            "Open that address in a browser.",
        )
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line, which everybody on the machine can read
        "MLFLOW_ARTIFACTS_DESTINATION": client.artifacts(uri) or "",
    }
    port = _free(settings.host, settings.port)
    client.client(uri)  # for its error messages, and to create a missing file
    if not is_loopback(settings.host):
        risk = f"anybody who reaches {settings.host}:{port} can read and change all runs and models"
        print(f"lensmith: MLflow has no authentication: {risk}", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        command = [sys.executable, "-m", "mlflow", "server", "--host", settings.host, "--port", str(port)]
        # In a session of its own, so that it can be ended with its children, and Ctrl-C reaches only this process.
        process = subprocess.Popen(
            [*command, "--workers", "1"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _await(process, settings.host, port, log)
            print(f"MLflow answers at {_url(settings.host, port)} with what is in {shown(uri)}", flush=True)
            print("Ctrl-C ends it.", flush=True)
            process.wait()
            raise _ended(process, log)
        except KeyboardInterrupt:
            return
        finally:
            _end(process)


def _await(process: subprocess.Popen[bytes], host: str, port: int, log: IO[str]) -> None:
    """Wait until the server answers.

    Raises:
        ServiceError: the server ended, or did not answer within START_S.
    """
    deadline, opener = time.monotonic() + START_S, build_opener(ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, HTTPException), opener.open(f"{_url(host, port)}/health", timeout=5):
            return
        time.sleep(0.1)
    raise _ended(process, log)


def _ended(process: subprocess.Popen[bytes], log: IO[str]) -> ServiceError:
    log.seek(0)
    lines = [line for line in log.read().splitlines() if line.strip()]
    how = "It did not" if process.poll() is None else f"It ended with exit code {process.returncode}"
    return ServiceError(
        "MLflow's server was expected to answer.",
        f"{how}{f' ({shown(lines[-1].strip())})' if lines else ''}.",
        "Start it by hand to see more: mlflow server",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server with all its children."""
    for name in ("SIGTERM", "SIGKILL"):
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, name))
            else:  # Windows
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        ServiceError: the port cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ServiceError(
            f"A free port was expected at {host}:{port}.",
            f"It cannot be bound ({error.strerror or error}).",
            "Name another with --port; --port 0 picks one.",
        ) from error


def _url(host: str, port: int) -> str:
    """The address by which this machine reaches a server bound to `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
