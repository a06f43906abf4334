"""A real store of runs in SQLite, a real tracking server that can be killed, and run folders to send."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle.format import Bundle
from lensmith.registry import client as store
from lensmith.tracking.state import TrackingState


@pytest.fixture(scope="session")
def runs_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite database with MLflow's tables, which takes seconds to make."""
    uri = store.uri(str(tmp_path_factory.mktemp("store") / "mlflow.db"))
    store.client(uri)
    return uri


@pytest.fixture
def run(trained: Path, colour_bundle: Bundle, tmp_path: Path) -> Path:
    """A finished and exported run folder, of which nothing has been sent."""
    folder = tmp_path / "runs" / "one"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("*.pt", "bundle"))
    shutil.copytree(colour_bundle.path, folder / "bundle")
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "exported", "bundle": "bundle", "version": "1", "time": time.time()}) + "\n")
    return folder


@pytest.fixture
def begin(runs_uri: str) -> Callable[..., TrackingState]:
    """`begin(run)`: the run is to be tracked there."""

    def note(run: Path, uri: str = runs_uri) -> TrackingState:
        return TrackingState.new(uri, run).write(run)

    return note


class Server:
    """`mlflow server` over a SQLite file, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.url = folder, port, f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        environment = {
            **os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }  # fmt: skip
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        while self._process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with suppress(OSError):
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            time.sleep(0.1)
        pytest.fail((self.folder / "server.log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    """A running one."""
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server", free_port())
    made.start()
    yield made
    made.kill()


@pytest.fixture
def histories() -> Callable[[str, str], dict[str, list[tuple[int, float]]]]:
    """`histories(uri, run_id)`: every value of every metric as (step, value), in the order of steps."""

    def read(uri: str, run_id: str) -> dict[str, list[tuple[int, float]]]:
        client = store.client(uri)
        names = client.get_run(run_id).data.metrics
        return {
            name: sorted((one.step, one.value) for one in client.get_metric_history(run_id, name)) for name in names
        }

    return read


@pytest.fixture
def files() -> Callable[[str, str], set[str]]:
    """`files(uri, run_id)`: the paths of all artifacts."""

    def read(uri: str, run_id: str) -> set[str]:
        client, found, folders = store.client(uri), set[str](), [""]
        while folders:
            for one in client.list_artifacts(run_id, folders.pop() or None):
                folders += [one.path] if one.is_dir else []
                found |= set() if one.is_dir else {one.path}
        return found

    return read


@pytest.fixture
def tell() -> Callable[..., None]:
    """`tell(run, event, **fields)`: append an event."""

    def append(run: Path, event: str, **fields: Any) -> None:
        with (run / "events.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")

    return append
