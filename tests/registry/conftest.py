"""Registries of all three kinds, real ones: a SQLite file, PostgreSQL with a folder, and `mlflow server` over HTTP."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lensmith.bundle import Bundle
from lensmith.registry.store import client


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, whose making takes seconds; to be copied."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{file}")
    return file


@pytest.fixture
def workspace(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a registry in runs/mlflow.db and a cache of its own."""
    folder = tmp_path / "workspace"
    (folder / "runs").mkdir(parents=True)
    shutil.copy(empty_database, folder / "runs" / "mlflow.db")
    monkeypatch.chdir(folder)
    for name in ("LENSMITH_TRACKING_URI", "LENSMITH_TRACKING_ARTIFACTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def registry(workspace: Path) -> Any:
    """MLflow's client for the registry of `workspace`."""
    return client(f"sqlite:///{workspace / 'runs' / 'mlflow.db'}")


@pytest.fixture
def versions(registry: Any, remake: Callable[..., Bundle]) -> Callable[..., Bundle]:
    """`versions("1", "2")`: bundles of these versions, pushed as flowers, the first as champion; the last bundle."""
    from lensmith.registry.push import push

    def make(*names: str) -> Bundle:
        for name in names:
            bundle = remake(f"bundle-{name}", version=name, name="flowers")
            push(registry, bundle.path, alias="champion" if name == names[0] else None)
        return bundle

    return make


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """The URI of a running PostgreSQL with an empty database, as MLflow takes it; with a password in it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = str(found[-1]) if found else shutil.which("initdb")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have PostgreSQL: install postgresql")
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgresql")
    # PostgreSQL refuses to run as root. Another user must be able to go down to its folder.
    as_other = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
    if as_other:
        shutil.chown(folder, "nobody")
        for above in (folder, *folder.parents)[:-2]:
            above.chmod(above.stat().st_mode | 0o011)
    password = folder / "password"
    password.write_text("geheim")
    password.chmod(0o644)
    data, port = folder / "data", free_port()
    make = [path, "-D", data, "-U", "mlflow", "--pwfile", password, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"]
    subprocess.run([*as_other, *map(str, make), "--locale=C"], check=True, capture_output=True, cwd="/")
    run = [Path(path).with_name("postgres"), "-D", data, "-p", port, "-h", "127.0.0.1", "-k", data, "-F"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*as_other, *map(str, run)], stderr=log, stdout=log, cwd="/", start_new_session=True)
    try:
        import psycopg

        while True:
            try:
                psycopg.connect(f"postgresql://mlflow:geheim@127.0.0.1:{port}/postgres", connect_timeout=5).close()
                break
            except psycopg.OperationalError:
                if process.poll() is not None:
                    pytest.fail((folder / "log").read_text())
                time.sleep(0.05)
        yield f"postgresql://mlflow:geheim@127.0.0.1:{port}/postgres"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()


@pytest.fixture(scope="session")
def mlflow_server(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[str]:
    """The address of a running `mlflow server`, through which artifacts go, too."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **quiet}, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                if process.poll() is not None:
                    pytest.fail((folder / "log").read_text())
            finally:
                connection.close()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture(params=["sqlite", "postgresql", "server"])
def address(request: pytest.FixtureRequest, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI of each kind in turn, set for all verbs."""
    if request.param == "sqlite":
        return f"sqlite:///{workspace / 'runs' / 'mlflow.db'}"
    if request.param == "postgresql":
        monkeypatch.setenv("LENSMITH_TRACKING_ARTIFACTS", str(workspace / "artifacts"))
    found = str(request.getfixturevalue("postgresql" if request.param == "postgresql" else "mlflow_server"))
    monkeypatch.setenv("LENSMITH_TRACKING_URI", found)
    return found
