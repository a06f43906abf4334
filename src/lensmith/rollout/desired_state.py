"""Desired state of a service: bundles pulled from the registry, published to the channel, cached for offline starts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from lensmith.core.files import atomic_write
from lensmith.core.machine import cache_dir
from lensmith.errors import LensmithError, RegistryUnreachableError
from lensmith.registry.models import Version, resolve
from lensmith.registry.pull import pull
from lensmith.registry.references import ModelReference
from lensmith.rollout.ledger import LedgerEntry
from lensmith.rollout.sidecar_channel import SidecarChannel
from lensmith.rollout.state import DesiredState

if TYPE_CHECKING:
    from mlflow import MlflowClient


def pull_desired_state(
    client: MlflowClient, version: Version, alias: str, entry: LedgerEntry | None, before: DesiredState | None
) -> DesiredState:
    """Pull the bundles of a version and of the challenger beside it.

    Where the version's bundle cannot be pulled, that of the state before stays in service, and `problem` says why.

    Raises:
        RegistryUnreachableError: the registry does not answer.
        RegistryError, BundleError: the bundle cannot be pulled, and there is no state before.
    """
    problem = ""
    try:
        path, served = pull(client, version), version.version
    except RegistryUnreachableError:
        raise
    except LensmithError as error:
        if before is None:
            raise
        problem = str(error)
        path, served = before.path, before.version
    challenger_path, trouble = None, ""
    if entry is not None and entry.decision is None:
        try:
            challenger = ModelReference(entry.rollout.name, entry.rollout.challenger)
            challenger_path = pull(client, resolve(client, challenger))
        except RegistryUnreachableError:
            raise
        except LensmithError as error:
            trouble = str(error)
    return DesiredState(
        name=version.name,
        alias=alias,
        version=served,
        path=path,
        rollout=entry and entry.rollout,
        decision=entry and entry.decision,
        challenger_path=challenger_path,
        trouble=trouble,
        problem=problem,
    )


class DesiredStateWriter:
    """Writes the desired state to the channel, and to a file of the cache for a start without the registry.

    Attributes:
        latest: the last state that was written or restored; None before the first.
    """

    def __init__(self, channel: SidecarChannel, reference: ModelReference, address: str) -> None:
        self.cache_file = cache_dir() / "registry" / "followed" / f"{reference.cache_key(address)}.json"
        self.latest: DesiredState | None = None
        self._channel = channel
        self._cached: DesiredState | None = None

    def restore(self) -> DesiredState | None:
        """The state that an earlier sidecar of the same name left in the cache; None without a readable one."""
        with suppress(OSError, ValueError):
            state = DesiredState.model_validate_json(self.cache_file.read_bytes())
            if state.path.exists():  # else the cache was cleared, but for this file
                self.latest = state
        return self.latest

    def write(self, state: DesiredState) -> None:
        """Write a state where it differs from the one before."""
        self.latest = state
        if not (self._channel.is_published() and _is_same(state, self._channel.desired_state())):
            self._channel.write_desired_state(state)
        cached = state.model_copy(update={"comparison": {}, "problem": ""})
        if state.reachable and not _is_same(cached, self._cached):
            self._cached = cached
            with suppress(OSError):  # a full disk, or a read-only cache
                self.cache_file.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.cache_file, cached.model_dump_json())

    def publish_again(self) -> None:
        """Write the latest state again where others removed or changed its file."""
        if self.latest is not None and not self._channel.is_published():
            self._channel.write_desired_state(self.latest)


def _is_same(state: DesiredState, before: DesiredState | None) -> bool:
    """Whether two states differ in nothing but the time at which they were read."""
    return before is not None and state.model_copy(update={"read_at": before.read_at}) == before
