"""MLflow client: the tracking URI, and one connection for registry and tracking.

MLflow is imported here and in `lensmith.tracking`, inside functions: the import alone takes seconds.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lensmith.config import TrackingSettings
from lensmith.core.files import staging_directory, sync_directory
from lensmith.core.locks import LockTimeoutError, locked
from lensmith.core.text import text_of_variable
from lensmith.errors import RegistryError, RegistryUnreachableError
from lensmith.registry.mlflow_errors import shown, translate_address_errors, translate_errors, unreachable_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS = Path("runs/mlflow.db"), "mlartifacts"
"""Default database, and the folder of artifacts beside a SQLite file."""

CONNECT_S = 5
"""Longest wait for a connection to a server or database, in seconds."""

_CREATE_S = 120.0
"""Longest wait for another process that creates the tables, in seconds; it takes a few."""

_ENVIRONMENT = {
    # MLflow's own defaults retry an unreachable server for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # for each part of an upload
    # Errors are translated by `translate_errors`; the log would print MLflow's traceback before them.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "databricks-uc")


def uri(given: str | None = None) -> str:
    """MLflow's tracking URI: a flag, LENSMITH_TRACKING_URI, lensmith.yaml, MLFLOW_TRACKING_URI, or runs/mlflow.db.

    Args:
        given: value of a flag; a path stands for a SQLite file.

    Returns:
        A tracking URI; the path of a SQLite file in it is absolute.

    Raises:
        RegistryError: MLflow has no registry under such a scheme.
        SettingsError: an empty variable, which may be meant for a server and must not mean a file here.
    """
    found = TrackingSettings.resolve({"uri": given}).uri
    if found is None:
        found = text_of_variable("MLFLOW_TRACKING_URI", "The address of an MLflow server or database") or str(DATABASE)
    scheme, separator, rest = found.partition("://")
    if not separator and scheme not in _SCHEMES:
        return f"sqlite:///{Path(found).absolute()}"
    dialect = scheme.partition("+")[0]
    if dialect == "postgres" or scheme == "postgresql":  # the driver that the extra `postgres` brings
        return f"postgresql+psycopg://{rest}"
    if dialect not in _SCHEMES:
        raise RegistryError(
            f"An address of MLflow's registry was expected: {', '.join(_SCHEMES[:6])}.",
            f"{shown(found)} arrived.",
            "Name a SQLite file as sqlite:///FILE, a database, or the address of an `mlflow server`.",
        )
    file = sqlite_file(found)
    return f"sqlite:///{file}" if file else found


def client(address: str, create: bool = True) -> MlflowClient:
    """Connect to MLflow, with its log lines off.

    A database, or a server without a proxy before it, is contacted at once.

    Args:
        address: tracking URI from `uri`.
        create: True to create a missing SQLite file.

    Raises:
        RegistryUnreachableError: the server or database takes no connection.
        RegistryError: the SQLite file is missing and `create` is off; the database has another MLflow's schema, or no
            driver is installed for it; the address is malformed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    file = sqlite_file(address)
    if file:
        # A connection that stays open reads a file that was replaced, as from a backup, for ever.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        if not create and not file.exists():
            raise RegistryError(*_missing_file(file))
    with translate_errors(address), translate_address_errors(address):
        from mlflow import MlflowClient

        if address.startswith(("http:", "https:")):
            _contact_server(address)
        if address.startswith(("http:", "https:", "databricks")):
            return MlflowClient(address, address)
        with _sqlite_ready(file, (file.parent / ARTIFACTS).as_uri()) if file else nullcontext():
            _contact_database(address)
            return MlflowClient(_with_timeout(address), _with_timeout(address))


def require_present(address: str) -> None:
    """Refuse a registry in a SQLite file that is not there, as on a share that is not mounted, without making it.

    Raises:
        RegistryUnreachableError: the file is missing; what was pulled before may still be used.
    """
    file = sqlite_file(address)
    if file and not file.is_file():
        raise RegistryUnreachableError(*_missing_file(file))


def _missing_file(file: Path) -> tuple[str, str, str]:
    return (
        f"A registry was expected in {file}.",
        "There is none.",
        "Push a bundle first (lensmith registry push), or name the registry with --tracking-uri.",
    )


def experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment, which is created where it is missing.

    Raises:
        RegistryError: the address is a database without a server, and no location for artifacts is set.
    """
    address = str(client.tracking_uri)
    with translate_errors(address):
        found = client.get_experiment_by_name(name)
        if found is None:
            from mlflow.exceptions import MlflowException

            try:
                return str(client.create_experiment(name, artifact_location=artifacts(address)))
            except MlflowException:
                found = client.get_experiment_by_name(name)
                if found is None:  # no other process has created it meanwhile
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def artifacts(address: str) -> str | None:
    """The artifact location of a new experiment; None leaves it to the server.

    Raises:
        RegistryError: the address is a database that other machines use, and no location that they reach is set.
    """
    if address.startswith(("http:", "https:", "databricks")):
        return None
    if chosen := TrackingSettings.resolve({}).artifacts:
        return chosen if "://" in chosen else Path(chosen).absolute().as_uri()
    if file := sqlite_file(address):
        return (file.parent / ARTIFACTS).as_uri()
    raise RegistryError(
        f"A location for the artifacts beside the database {shown(address)} was expected.",
        "None is set.",
        "Set LENSMITH_TRACKING_ARTIFACTS to a folder that all machines reach, or to s3://BUCKET/PATH.",
    )


def sqlite_file(address: str) -> Path | None:
    """The file of a SQLite URI; None for other addresses."""
    return Path(address.partition(":///")[2].partition("?")[0]).absolute() if address.startswith("sqlite") else None


def _contact_server(address: str) -> None:
    """Connect to a server once: requests to a machine that drops packets would only fail after all retries."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise unreachable_error(shown(address), error.strerror or str(error)) from error


def _contact_database(address: str) -> None:
    """Connect to a database once: MLflow would retry an unreachable one for minutes, and print each failure."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with create_engine(_with_timeout(address), poolclass=NullPool).connect():
        pass


def _with_timeout(address: str) -> str:
    if not address.startswith("postgresql") or "connect_timeout" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}connect_timeout={CONNECT_S}"


@contextmanager
def _sqlite_ready(file: Path, artifacts: str) -> Iterator[None]:
    """Create a SQLite file with MLflow's tables where it is missing; no other process does so during the block.

    MLflow creates its tables one after the other, which takes seconds. A process that is killed meanwhile, or finds the
    disk full, would leave a file that every later one refuses, so the file is created in another folder and moved.
    """
    with ExitStack() as stack:
        with suppress(OSError, LockTimeoutError):  # such as a registry on a read-only medium, which takes no lock
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(file.with_name(f".{file.name}.lock"), _CREATE_S))
        if not file.exists() or file.stat().st_size == 0:
            _create_sqlite(file, artifacts)
        yield


def _create_sqlite(file: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for abandoned in file.parent.glob(f".{file.name}-*"):  # by a process that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    with staging_directory(file) as staging:  # never the same name twice, since MLflow caches stores by name
        SqlAlchemyStore(f"sqlite:///{staging / file.name}", artifacts).engine.dispose()
        (staging / file.name).replace(file)
    sync_directory(file.parent)
