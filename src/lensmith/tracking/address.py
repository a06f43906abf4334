"""Where a run is tracked: from the setting to MLflow's tracking URI."""

from __future__ import annotations

from importlib.util import find_spec

from lensmith.config.values import without_password
from lensmith.errors import MissingPackageError
from lensmith.registry import client
from lensmith.tracking.state import TrackingState

AUTO, NONE = "auto", "none"


def installed() -> bool:
    """Whether there is an MLflow to be imported."""
    return find_spec("mlflow") is not None


def uri_of(setting: str, state: TrackingState | None) -> str | None:
    """Where to send a run, with a password if one is known; None: nowhere.

    A run goes on where it was begun unless the setting names another place. Passwords are not kept in run folders, so
    that of the store that all verbs use is taken where it is the same place.

    Args:
        setting: `TrainSettings.tracking`.
        state: of the run, if it has been tracked before.

    Raises:
        RegistryError: the setting, or what stands in the place of `auto`, is no tracking URI.
        MissingPackageError: a place is named, and MLflow is not installed.
    """
    if setting == NONE:
        return None
    if not installed():
        if setting == AUTO:
            return None
        raise MissingPackageError.of(ModuleNotFoundError(name="mlflow"))
    if setting != AUTO:
        wanted = client.uri(setting)
    elif state is not None:
        wanted = state.uri
    else:
        return client.uri()
    usual = client.uri()
    return usual if wanted == without_password(usual) else wanted
