"""Tracking URI of a run, from its setting."""

from importlib.util import find_spec

from lensmith.config.values import without_password
from lensmith.errors import MissingPackageError
from lensmith.registry import client
from lensmith.tracking.state import TrackingState

AUTO, NONE = "auto", "none"


def installed() -> bool:
    """Whether MLflow is installed."""
    return find_spec("mlflow") is not None


def require_installed() -> None:
    """Refuse to go on without MLflow.

    Raises:
        MissingPackageError: MLflow is not installed.
    """
    if not installed():
        raise MissingPackageError.of(ModuleNotFoundError(name="mlflow"))


def uri_of(setting: str, state: TrackingState | None) -> str | None:
    """The tracking URI of a run, with its password if the settings have it; None: the run is not tracked.

    A resumed run stays at its first tracking URI unless the setting names another. Run folders contain no passwords, so
    the URI of the settings is returned where it is the same without its password.

    Args:
        setting: `TrainSettings.tracking`.
        state: the run's tracking state; None for a run that was never tracked.

    Raises:
        RegistryError: the setting, or the settings' default for `auto`, is no tracking URI.
        MissingPackageError: the setting names a URI, and MLflow is not installed.
    """
    if setting == NONE:
        return None
    if setting == AUTO and not installed():
        return None
    require_installed()
    if setting != AUTO:
        wanted = client.uri(setting)
    elif state is not None:
        wanted = state.uri
    else:
        return client.uri()
    usual = client.uri()
    return usual if wanted == without_password(usual) else wanted
