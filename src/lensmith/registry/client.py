"""MLflow client: the tracking URI, one connection for registry and tracking, and MLflow's errors translated.

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
"""Default database, and the folder of artifacts beside a SQLite file."""

CONNECT_S = 5
"""Longest wait for a connection to a server or database, in seconds."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow's own defaults retry an unreachable server for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # for each part of an upload
    # Errors are translated by `problems`; the log would print MLflow's traceback before them.
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
            f"An address of MLflow's registry was expected: {', '.join(_SCHEMES[:6])}.",
            f"{shown(found)} arrived.",
            "Name a SQLite file as sqlite:///FILE, a database, or the address of an `mlflow server`.",
        )
    file = sqlite_file(found)
    return f"sqlite:///{file}" if file else found


def client(address: str, create: bool = True) -> MlflowClient:
    """Connect to MLflow, with its telemetry and log lines off.

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
    if file and not create and not file.exists():
        raise RegistryError(
            f"A registry was expected in {file}.",
            "There is none.",
            "Push a bundle first (lensmith registry push), or name the registry with --tracking-uri.",
        )
    with problems(address), _address_errors(address):
        from mlflow import MlflowClient

        if address.startswith(("http:", "https:")):
            _contact_server(address)
        if address.startswith(("http:", "https:", "databricks")):
            return MlflowClient(address, address)
        with sqlite.ready(file, (file.parent / ARTIFACTS).as_uri()) if file else nullcontext():
            _contact_database(address)
            return MlflowClient(_with_timeout(address), _with_timeout(address))


def experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment, which is created where it is missing.

    Raises:
        RegistryError: the address is a database without a server, and no location for artifacts is set.
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


def shown(text: object) -> str:
    """A text without users, passwords and tokens in its addresses, for messages."""
    text = re.sub(r"(?<=://)(?:[^:/\s@]*:\S*|[^/\s]*)@", "", str(text))
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*=)[^&\s'\"]*", r"\1***", text)


@contextmanager
def problems(address: str = "") -> Iterator[None]:
    """Translate errors of MLflow, and of the libraries below it.

    Args:
        address: tracking URI for the message, which leaves user and password out.

    Raises:
        RegistryUnreachableError: the server or database does not answer.
        RegistryError: MLflow refuses the request.
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


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that led to it, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def code(error: BaseException) -> str:
    """MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; empty for other errors."""
    return str(getattr(error, "error_code", ""))


def _translated(error: Exception, address: str) -> RegistryError:
    text, kind, is_server = str(error), code(error), address.startswith("http")
    is_denied = kind in {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
    if is_denied or re.search(r"authentication failed|error code 40[13]\b", text):
        return RegistryError(
            f"Access to MLflow at {address} was expected.",
            f"It was refused ({_reason(error)}).",
            "Check the user and password of a database in its address; for a server set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
        )
    if re.search(r"OperationalError\) table \w+ already exists", text):
        return RegistryError(
            f"A complete database was expected at {address}.",
            "The process that created it was stopped before all tables existed.",
            "It is still empty: remove the file, and try again.",
        )
    is_internal = kind == "INTERNAL_ERROR" and not re.search(r"error code 4\d\d\b", text)  # also of a proxy
    if _is_unreachable(error) or (is_server and is_internal):
        return _unreachable(address, _reason(error))
    if is_server and kind == "ENDPOINT_NOT_FOUND":
        return RegistryError(
            f"An `mlflow server` was expected at {address}.",
            "Another server answers there.",
            "Check the address, and the path prefix of a proxy.",
        )
    if "out-of-date database schema" in text:
        return RegistryError(
            f"A database of this MLflow was expected at {address}.",
            "Another version created it.",
            "Save a copy of it, then run: mlflow db upgrade URI",
        )
    return RegistryError(
        f"MLflow at {address} was expected to accept a request.",
        f"It answered: {_reason(error)}.",
        "List what it holds with: lensmith registry list",
    )


def _unreachable(address: str, reason: str) -> RegistryUnreachableError:
    return RegistryUnreachableError(
        f"MLflow was expected to answer at {address}.",
        f"It did not ({reason}).",
        "Check the address and that it runs; bundles that were pulled before stay usable.",
    )


def _is_unreachable(error: BaseException) -> bool:
    """Whether a connection failed, by the error or one of its causes."""
    kinds = {kind for cause in causes(error) for kind in type(cause).__mro__}
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in kinds}
    if names & {"requests.ConnectionError", "requests.Timeout", "sqlalchemy.OperationalError"}:
        return True
    return code(error) == "TEMPORARILY_UNAVAILABLE" or "too many 50" in str(error)


def _reason(error: Exception) -> str:
    """The reason in one line: the system's own message where there is one, since libraries wrap it in long texts."""
    text = shown(error)
    if found := re.search(r"\[Errno -?\d+\] ([\w ,-]+)", text) or re.search(r"(\w+ timed out)", text):
        return found[1]
    line = text.strip().partition("\n")[0].rstrip(".: ") or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}…"


@contextmanager
def _address_errors(address: str) -> Iterator[None]:
    """Translate errors about the address itself."""
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
        raise _unreachable(shown(address), error.strerror or str(error)) from error


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
