"""Where MLflow keeps runs and models: found, opened, and its errors in plain words.

MLflow is imported here and in `lensmith.tracking`, inside functions: the import alone takes seconds.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lensmith.config import TrackingSettings
from lensmith.errors import EXTRA_OF_PACKAGE, LensmithError, RegistryError, RegistryUnreachableError
from lensmith.registry import sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS = Path("runs/mlflow.db"), "mlartifacts"
"""The database where nothing else is said, and the folder of artifacts beside a SQLite file."""

CONNECT_S = 5
"""Seconds in which a server or database must take a connection."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow's own defaults try an unreachable server for minutes before they say so.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # for each part of an upload
    # What goes wrong is said by `problems`; the log would put MLflow's traceback before it.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "databricks-uc")


def uri(given: str | None = None) -> str:
    """Where MLflow is: a flag, LENSMITH_TRACKING_URI, lensmith.yaml, MLFLOW_TRACKING_URI, or runs/mlflow.db.

    Args:
        given: what a flag says; a path is a SQLite file.

    Returns:
        A tracking URI; that of a SQLite file names it absolutely, so that it holds in any folder.

    Raises:
        RegistryError: a scheme in which MLflow keeps no models.
    """
    found = TrackingSettings.resolve({"uri": given}).uri or os.environ.get("MLFLOW_TRACKING_URI") or str(DATABASE)
    scheme, separator, rest = found.partition("://")
    if not separator and scheme not in _SCHEMES:
        return f"sqlite:///{Path(found).absolute()}"
    dialect = scheme.partition("+")[0]
    if dialect == "postgres" or scheme == "postgresql":  # the driver that the extra `postgres` brings
        return f"postgresql+psycopg://{rest}"
    if dialect not in _SCHEMES:
        raise RegistryError(
            f"A place where MLflow keeps models was expected: {', '.join(_SCHEMES[:6])}.",
            f"{shown(found)} arrived.",
            "Name a SQLite file as sqlite:///FILE, a database, or the address of an `mlflow server`.",
        )
    file = sqlite_file(found)
    return f"sqlite:///{file}" if file else found


def client(address: str, create: bool = True) -> MlflowClient:
    """MLflow's client for a store, with telemetry and log lines off.

    A database, and a server that no proxy stands before, is connected to at once.

    Args:
        address: from `uri`.
        create: make a SQLite file that is not there.

    Raises:
        RegistryUnreachableError: it takes no connection.
        RegistryError: a SQLite file that is not there, with `create` off; a database of another MLflow's schema, or one
            for which no driver is installed; an address that is none.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    file = sqlite_file(address)
    if file and not create and not file.exists():
        raise RegistryError(
            f"A registry was expected in {file}.",
            "There is none.",
            "Push a bundle first (lensmith registry push), or say where the registry is with --tracking-uri.",
        )
    with problems(address), _sound(address):
        from mlflow import MlflowClient

        if address.startswith(("http:", "https:")):
            _knock(address)
        if address.startswith(("http:", "https:", "databricks")):
            return MlflowClient(address, address)
        with sqlite.ready(file, (file.parent / ARTIFACTS).as_uri()) if file else nullcontext():
            _connect(address)
            return MlflowClient(_patient(address), _patient(address))


def experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment, which is made where there is none.

    Raises:
        RegistryError: a database without a server, and nobody has said where its artifacts go.
    """
    address = str(client.tracking_uri)
    with problems(address):
        found = client.get_experiment_by_name(name)
        if found is None:
            from mlflow.exceptions import MlflowException

            try:
                return str(client.create_experiment(name, artifact_location=artifacts(address)))
            except MlflowException:
                found = client.get_experiment_by_name(name)
                if found is None:  # nobody was quicker: it cannot be made
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def artifacts(address: str) -> str | None:
    """Where artifacts of a new experiment go: None leaves it to the server.

    Raises:
        RegistryError: a database that other machines use, and no place that they reach.
    """
    if address.startswith(("http:", "https:", "databricks")):
        return None
    if chosen := TrackingSettings.resolve({}).artifacts:
        return chosen if "://" in chosen else Path(chosen).absolute().as_uri()
    if file := sqlite_file(address):
        return (file.parent / ARTIFACTS).as_uri()
    raise RegistryError(
        f"A place for the artifacts beside the database {shown(address)} was expected.",
        "None is named.",
        "Set LENSMITH_TRACKING_ARTIFACTS to a folder that all machines reach, or to s3://BUCKET/PATH.",
    )


def sqlite_file(address: str) -> Path | None:
    """The file behind a SQLite URI."""
    return Path(address.partition(":///")[2].partition("?")[0]).absolute() if address.startswith("sqlite") else None


def shown(text: object) -> str:
    """Text in which addresses have no user and password; a password may hold what an address should not."""
    text = re.sub(r"(?<=://)(?:[^:/\s@]*:\S*|[^/\s]*)@", "", str(text))
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*=)[^&\s'\"]*", r"\1***", text)


@contextmanager
def problems(address: str = "") -> Iterator[None]:
    """Say what goes wrong in MLflow, and below it, in plain words.

    Args:
        address: where MLflow is, for the message; its user and password are left out.

    Raises:
        RegistryUnreachableError: the server or database does not answer.
        RegistryError: what MLflow refuses.
    """
    try:
        yield
    except LensmithError:
        raise
    except Exception as error:
        room = type(error).__module__.partition(".")[0]
        if room not in {"mlflow", "sqlalchemy", "requests", "urllib3", "psycopg", "alembic"}:
            raise
        raise _translated(error, shown(address) or "MLflow") from error


def code(error: BaseException) -> str:
    """MLflow's own code of an error, as RESOURCE_DOES_NOT_EXIST; empty where it is none of MLflow's."""
    return str(getattr(error, "error_code", ""))


def _translated(error: Exception, place: str) -> RegistryError:
    said = _reason(error)
    if "authentication failed" in str(error):
        return _refused(place, said, "Check user and password in the address.")
    if re.search(r"OperationalError\) table \w+ already exists", str(error)):
        return RegistryError(
            f"A whole database was expected at {place}.",
            "Whoever began it was stopped before its tables were there.",
            "Nothing is in it yet: remove the file, and try again.",
        )
    if _is_silent(error) or (place.startswith("http") and _is_fault(error)):
        return _unreachable(place, said)
    if code(error) == "ENDPOINT_NOT_FOUND" and place.startswith("http"):
        return RegistryError(
            f"An `mlflow server` was expected at {place}.",
            "Something else answers there.",
            "Check the address, and the path below which a proxy has put the server.",
        )
    if "out-of-date database schema" in str(error):
        return RegistryError(
            f"A database of this MLflow was expected at {place}.",
            "It was made by another version.",
            "Save a copy of it, then run: mlflow db upgrade URI",
        )
    if code(error) in {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"} or re.search(
        r"error code 40[13]\b", str(error)
    ):
        return _refused(
            place, said, "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    return RegistryError(
        f"MLflow at {place} was expected to do as it was asked.",
        f"It said: {said}.",
        "Look at what is there with: lensmith registry list",
    )


def _unreachable(place: str, said: str) -> RegistryUnreachableError:
    return RegistryUnreachableError(
        f"MLflow was expected to answer at {place}.",
        f"It did not ({said}).",
        "Check the address and that it runs; what was fetched before stays usable.",
    )


def _refused(place: str, said: str, remedy: str) -> RegistryError:
    return RegistryError(f"Access to MLflow at {place} was expected.", f"It was refused ({said}).", remedy)


def _is_silent(error: BaseException) -> bool:
    """Whether a connection failed, here or in what the error was made from."""
    seen: BaseException | None = error
    while seen is not None:
        names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(seen).__mro__}
        if names & {"requests.ConnectionError", "requests.Timeout", "sqlalchemy.OperationalError"}:
            return True
        seen = seen.__cause__ or seen.__context__
    return code(error) == "TEMPORARILY_UNAVAILABLE" or "too many 50" in str(error)


def _is_fault(error: BaseException) -> bool:
    """Whether a server, or a proxy before it, answered with a fault of its own."""
    return code(error) == "INTERNAL_ERROR" and not re.search(r"error code 4\d\d\b", str(error))


def _reason(error: Exception) -> str:
    """Why, in a line: what the system said where it said something, since libraries wrap that in much else."""
    text = shown(error)
    if found := re.search(r"\[Errno -?\d+\] ([\w ,-]+)", text) or re.search(r"(\w+ timed out)", text):
        return found[1]
    line = text.strip().partition("\n")[0].rstrip(".: ") or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}…"


@contextmanager
def _sound(address: str) -> Iterator[None]:
    """Say what is wrong with an address itself."""
    try:
        yield
    except ValueError as error:
        raise RegistryError(
            "An address such as http://HOST:PORT or postgresql://USER:PASSWORD@HOST:PORT/DATABASE was expected.",
            f"{shown(address)} arrived.",
            "Write the port as a number, and in a password @ as %40, / as %2F and : as %3A.",
        ) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRA_OF_PACKAGE:
            raise
        raise RegistryError(
            f"A driver for {shown(address)} was expected.",
            f"The package {error.name} is not installed.",
            "Install it, or name another driver, as in mysql+pymysql://…",
        ) from error


def _knock(address: str) -> None:
    """Connect to a server once: a machine that swallows packets would be waited for until the last try's time is up."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise _unreachable(shown(address), error.strerror or str(error)) from error


def _connect(address: str) -> None:
    """Connect once: MLflow would try an unreachable database for minutes, and print each failure."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with create_engine(_patient(address), poolclass=NullPool).connect():
        pass


def _patient(address: str) -> str:
    if not address.startswith("postgresql") or "connect_timeout" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}connect_timeout={CONNECT_S}"
