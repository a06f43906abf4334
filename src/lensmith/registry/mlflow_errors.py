"""Errors of MLflow, and of the libraries below it, translated; addresses shown without their passwords."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lensmith.errors import EXTRA_OF_PACKAGE, LensmithError, RegistryError, RegistryUnreachableError


def shown(text: object) -> str:
    """A text without users, passwords and tokens in its addresses, for messages."""
    text = re.sub(r"(?<=://)(?:[^:/\s@]*:\S*|[^/\s]*)@", "", str(text))
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*=)[^&\s'\"]*", r"\1***", text)


@contextmanager
def translate_errors(address: str = "") -> Iterator[None]:
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
        return unreachable_error(address, _reason(error))
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


def unreachable_error(address: str, reason: str) -> RegistryUnreachableError:
    """The error about a server or database that does not answer, for a reason without a full stop."""
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
def translate_address_errors(address: str) -> Iterator[None]:
    """Translate errors about the address itself."""
    try:
        yield
    except ValueError as error:
        raise RegistryError(
            "An address such as http://HOST:PORT or postgresql://USER:PASSWORD@HOST:PORT/DATABASE was expected.",
            f"{shown(address)} arrived.",
            "Write the port as a number. In a password replace @ by %40, / by %2F and : by %3A.",
        ) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRA_OF_PACKAGE:
            raise
        raise RegistryError(
            f"A driver for {shown(address)} was expected.",
            f"The package {error.name} is not installed.",
            "Install it, or name another driver, as in mysql+pymysql://…",
        ) from error
