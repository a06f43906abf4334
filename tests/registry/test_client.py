"""Tracking URIs, and the translation of MLflow's errors."""

import http.server
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fixtures.registries import Server
from lensmith.errors import RegistryError, RegistryUnreachableError
from lensmith.registry import client
from lensmith.registry.mlflow_errors import shown, translate_errors


@pytest.mark.slow
def test_the_first_of_flag_environment_file_and_mlflows_own_variable_counts(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.uri() == f"sqlite:///{workspace}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflows-own:5000")
    assert client.uri() == "http://mlflows-own:5000"
    (workspace / "lensmith.yaml").write_text("tracking:\n  uri: http://file:5000\n")
    assert client.uri() == "http://file:5000"
    monkeypatch.setenv("LENSMITH_TRACKING_URI", "http://environment:5000")
    assert client.uri() == "http://environment:5000"
    assert client.uri("http://flag:5000") == "http://flag:5000"


def test_a_sqlite_file_is_named_absolutely_whatever_the_folder(workspace: Path) -> None:
    assert client.uri("sqlite:///a/b.db") == f"sqlite:///{workspace}/a/b.db"
    assert client.uri("a/b.db") == f"sqlite:///{workspace}/a/b.db"
    assert client.uri("sqlite:////srv/b.db") == "sqlite:////srv/b.db"


def test_postgresql_is_reached_with_the_driver_that_the_extra_brings() -> None:
    assert client.uri("postgresql://u:p@h/db") == "postgresql+psycopg://u:p@h/db"
    assert client.uri("postgres://u:p@h/db") == "postgresql+psycopg://u:p@h/db"
    assert client.uri("postgresql+psycopg2://u:p@h/db") == "postgresql+psycopg2://u:p@h/db"


@pytest.mark.parametrize("address", ["file:///srv/mlruns", "ftp://u:geheim@h/x"])
def test_an_address_without_a_registry_is_refused(address: str) -> None:
    with pytest.raises(RegistryError, match="address of MLflow") as caught:
        client.uri(address)
    assert "geheim" not in str(caught.value)


def test_reading_a_registry_that_is_not_there_makes_none(tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    with pytest.raises(RegistryError, match="There is none"):
        client.client(f"sqlite:///{file}", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_address_where_nothing_answers_is_reported_without_its_password(
    scheme: str, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with pytest.raises(RegistryUnreachableError) as caught:
        client.client(client.uri(f"{scheme}://me:geheim@127.0.0.1:{port}/db"))
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert "Connection refused" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:geheim@127.0.0.1/db",
        "postgresql://me:o@geheim@127.0.0.1/db",
        "postgresql://me:o/geheim@127.0.0.1/db",
        "postgresql://127.0.0.1/db?user=me&password=geheim&sslmode=require",
        "http://geheim@127.0.0.1:5000",
    ],
)
def test_no_part_of_a_password_is_shown_however_it_is_written(address: str) -> None:
    assert "geheim" not in shown(f"it ({address}) is away")
    assert "127.0.0.1" in shown(address)


def test_what_is_no_password_is_shown() -> None:
    for address in ("s3://bucket/a@b/c", "sqlite:////srv/mlflow.db", "http://host:5000/path?user=me"):
        assert shown(address) == address


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://host:port", "port as a number"),
        ("postgresql://me:geheim@host:port/db", "port as a number"),
        ("sqlite:////", "port as a number"),
        ("mysql+nodriver://me:geheim@host/db", "It answered"),
        ("mssql+pymssql://me:geheim@host/db", "package pymssql is not installed"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        client.client(address)
    assert "geheim" not in str(caught.value)


@pytest.mark.slow
def test_a_wrong_password_is_reported_as_such(postgresql: Server) -> None:
    with pytest.raises(RegistryError, match="authentication failed") as caught:
        client.client(client.uri(postgresql.url.replace("geheim", "falsch")))
    assert not isinstance(caught.value, RegistryUnreachableError)
    assert "falsch" not in str(caught.value)


@pytest.mark.slow
def test_a_database_without_a_place_for_artifacts_is_refused_before_anything_is_written(
    postgresql: Server, workspace: Path
) -> None:
    there = client.client(client.uri(postgresql.url))
    with pytest.raises(RegistryError, match="LENSMITH_TRACKING_ARTIFACTS"):
        client.experiment(there, "nowhere")
    assert there.get_experiment_by_name("nowhere") is None


@pytest.fixture
def strange_server() -> Iterator[Callable[[int], str]]:
    """`strange_server(status)`: the address of a server that says only this, in HTML."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status = 0

        def do_GET(self) -> None:
            self.send_error(self.status)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def says(status: int) -> str:
            Handler.status = status
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield says
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, RegistryError, "Another server answers there"),
        (401, RegistryError, "MLFLOW_TRACKING_USERNAME"),
        (403, RegistryError, "MLFLOW_TRACKING_USERNAME"),
        (502, RegistryUnreachableError, "It did not"),
    ],
)
def test_what_a_server_says_is_translated(
    status: int, error: type[RegistryError], message: str, strange_server: Callable[[int], str]
) -> None:
    address = strange_server(status)
    there = client.client(address)
    with pytest.raises(RegistryError, match=message) as caught, translate_errors(address):
        there.get_registered_model("flowers")
    assert type(caught.value) is error


def test_an_experiment_has_its_artifacts_beside_a_sqlite_file_and_is_restored(workspace: Path, registry: Any) -> None:
    made = client.experiment(registry, "photos")
    assert registry.get_experiment(made).artifact_location == f"file://{workspace}/runs/mlartifacts"
    registry.delete_experiment(made)
    assert client.experiment(registry, "photos") == made
    assert registry.get_experiment(made).lifecycle_stage == "active"


@pytest.mark.slow
def test_a_sqlite_file_that_two_make_at_once_is_whole(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    with ThreadPoolExecutor(2) as pool:
        for each in pool.map(client.client, [address, address]):
            assert each.search_experiments()


@pytest.mark.slow
def test_a_database_that_was_cut_off_while_it_was_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.store.db.utils

    class Killed(BaseException):
        pass

    def die(engine: object) -> None:
        raise Killed

    address = client.uri(str(tmp_path / "runs" / "mlflow.db"))
    with monkeypatch.context() as cut:
        cut.setattr(mlflow.store.db.utils, "_upgrade_db", die)  # some of the tables are there
        with pytest.raises(Killed):
            client.client(address)
    assert [file.name for file in (tmp_path / "runs").iterdir()] == [".mlflow.db.lock"]
    (tmp_path / "runs" / ".mlflow.db-abc").mkdir()  # of one that had no time to clean up
    assert client.client(address).search_experiments()
    assert sorted(file.name for file in (tmp_path / "runs").iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_half_a_database_that_somebody_else_left_is_distinguished_from_one_that_does_not_answer() -> None:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    reason = sqlite3.OperationalError("table trace_info already exists")
    message = OperationalError("CREATE TABLE trace_info", None, reason)
    with pytest.raises(RegistryError, match="remove the file") as caught, translate_errors("sqlite:////srv/m.db"):
        raise message
    assert not isinstance(caught.value, RegistryUnreachableError)
