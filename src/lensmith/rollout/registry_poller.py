"""Polling the registry: what a name means now, and the bundles that have to be on this machine for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.errors import LensmithError, RegistryUnreachableError
from lensmith.registry.client import client
from lensmith.registry.models import Version, resolve
from lensmith.registry.pull import pull
from lensmith.registry.references import CHAMPION, ModelReference
from lensmith.rollout.ledger import Ledger, LedgerEntry
from lensmith.rollout.state import CanaryRelease, DesiredState

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RegistryPoller:
    """Reads the registry over one connection, and pulls bundles into the cache.

    Args:
        reference: model and alias that the service serves.
        address: the registry's tracking URI.
        warn: receives a sentence about a bundle that cannot be pulled.
    """

    def __init__(self, reference: ModelReference, address: str, warn: Callable[[str], None]) -> None:
        self._reference = reference
        self._address = address
        self._warn = warn
        self._connection: MlflowClient | None = None
        self._ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger from which `latest_rollout` read an entry."""
        assert self._ledger is not None
        return self._ledger

    def connect(self) -> None:
        """Connect to the registry unless that was done before.

        Raises:
            RegistryError: there is no registry at the address.
        """
        self._connection = self._connection or client(self._address, create=False)

    @property
    def _client(self) -> MlflowClient:
        assert self._connection is not None
        return self._connection

    def latest_rollout(self) -> LedgerEntry | None:
        """The latest entry of the model's ledger; None where there is none, or another alias than champion is served.

        Raises:
            RegistryError: the ledger cannot be read.
        """
        if self._reference.which != CHAMPION:
            return None
        self._ledger = Ledger.open(self._client, self._reference.name, create=False)
        return self._ledger.latest() if self._ledger else None

    def version(self) -> Version:
        """The version that the reference names now.

        Raises:
            RegistryError: no such model or alias.
        """
        return resolve(self._client, self._reference)

    def desired_state(self, version: Version, entry: LedgerEntry | None, before: DesiredState | None) -> DesiredState:
        """Pull the bundles of a version and of a challenger, and describe what to serve.

        Args:
            version: the version that the reference names.
            entry: the latest rollout; None without one.
            before: the last desired state, which stays where the version's bundle cannot be pulled.

        Raises:
            RegistryUnreachableError: the registry does not answer.
            RegistryError, BundleError: the bundle cannot be pulled, and there is no state before.
        """
        try:
            path, served = pull(self._client, version), version.version
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            if before is None:
                raise
            self._warn(f"{error} Version {before.version} stays in service.")
            path, served = before.path, before.version
        state = DesiredState(name=self._reference.name, alias=self._reference.which, version=served, path=path)
        if entry is None:
            return state
        challenger_path, trouble = (None, "") if entry.decision else self._pull_challenger(entry.rollout)
        return state.model_copy(
            update={
                "rollout": entry.rollout,
                "decision": entry.decision,
                "challenger_path": challenger_path,
                "trouble": trouble,
            }
        )

    def _pull_challenger(self, rollout: CanaryRelease) -> tuple[Path | None, str]:
        """The path of the challenger's bundle, or the reason why it cannot be pulled."""
        try:
            return pull(self._client, resolve(self._client, ModelReference(rollout.name, rollout.challenger))), ""
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            return None, str(error)
