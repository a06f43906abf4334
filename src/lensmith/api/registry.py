"""MLflow: tracked runs; the model registry and canary releases, as objects that know where MLflow is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from lensmith.registry.aliases import AliasChange
    from lensmith.registry.models import RegisteredModel, Version
    from lensmith.registry.pull import Pulled
    from lensmith.registry.push import Pushed
    from lensmith.rollout.state import CanaryRelease, Decision
    from lensmith.rollout.status import RolloutStatus
    from lensmith.tracking.recent import TrackedRun
    from lensmith.tracking.sync import SyncResult


class Registry:
    """MLflow's model registry: bundles as versions of named models, and aliases such as champion.

    Args:
        tracking_uri: Address of MLflow; by default LENSMITH_TRACKING_URI, MLFLOW_TRACKING_URI, or runs/mlflow.db.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.tracking_uri = tracking_uri

    def push(self, bundle: StrPath, name: str | None = None, *, alias: str | None = None) -> Pushed:
        """Register a bundle as a version of a model; the same bundle is not registered twice.

        Args:
            bundle: Bundle folder or zip.
            name: Model; the bundle's name by default.
            alias: Alias for the version, such as champion.
        """
        from lensmith.bundle.format import Bundle
        from lensmith.registry.push import push

        client = self._client(create=True)
        if alias is not None:
            self._require_no_rollout(client, Bundle.load(bundle).manifest.name if name is None else name, alias)
        return push(client, bundle, name, alias)

    def models(self) -> Sequence[RegisteredModel]:
        """List the registered models with their versions and aliases."""
        from lensmith.registry import models

        client = self._client()
        return [models.model(client, name) for name in models.names(client)]

    def model(self, name: str) -> RegisteredModel:
        """A registered model with its versions and aliases."""
        from lensmith.registry import models

        return models.model(self._client(), name)

    def version(self, reference: str) -> Version:
        """The version that NAME@ALIAS or NAME@VERSION names."""
        from lensmith.registry import models, references

        name = references.require(reference)
        return models.resolve(self._client(), name)

    def set_alias(self, reference: str, alias: str) -> AliasChange:
        """Point an alias to NAME@VERSION or NAME@ALIAS; for champion, `previous` then names the champion before it."""
        from lensmith.registry import aliases, models, references

        name = references.require(reference)
        client = self._client()
        self._require_no_rollout(client, name.name, alias)
        return aliases.point(client, models.resolve(client, name), alias)

    def remove_alias(self, name: str, alias: str) -> AliasChange:
        """Remove an alias of a model."""
        from lensmith.registry import aliases

        client = self._client()
        self._require_no_rollout(client, name, alias)
        return aliases.remove(client, name, alias)

    def pull(self, reference: str, out: StrPath | None = None) -> Pulled:
        """Fetch a registered bundle, and verify it.

        Args:
            reference: NAME@ALIAS or NAME@VERSION.
            out: Folder, or file that ends in .zip, to write; by default the bundle is in the cache only.
        """
        from lensmith.registry import references
        from lensmith.registry.pull import pull_to

        name = references.require(reference)
        return pull_to(self._client(), name, None if out is None else Path(out))

    def rollback(self, name: str) -> AliasChange:
        """Make the previous champion of a model the champion again."""
        from lensmith.registry import aliases
        from lensmith.registry.references import CHAMPION

        client = self._client()
        self._require_no_rollout(client, name, CHAMPION)
        return aliases.rollback(client, name)

    def _client(self, create: bool = False) -> MlflowClient:
        from lensmith.registry.client import client, uri

        return client(uri(self.tracking_uri), create=create)

    @staticmethod
    def _require_no_rollout(client: MlflowClient, name: str, alias: str) -> None:
        from lensmith.rollout.lifecycle import require_not_under_way

        require_not_under_way(client, name, alias)


class Rollout:
    """The canary release of a registered model: a challenger answers a share of its champion's requests.

    Args:
        name: Registered model, as flowers.
        tracking_uri: Address of MLflow, as for `Registry`.
    """

    def __init__(self, name: str, tracking_uri: str | None = None) -> None:
        self.name = name
        self.tracking_uri = tracking_uri

    @documented(config.RolloutSettings)
    def start(
        self, version: str | int | None = None, *,
        share: float = default(10.0), shadow: bool = default(False), auto_promote: bool = default(False),
        promote_after: int = default(1000), sticky: Literal["request", "caller"] = default("request"),
        slo_ms: float = default(200.0), map: Mapping[str, str] | Sequence[str] | str | None = None,
    ) -> CanaryRelease:  # fmt: skip
        """Start a canary release of a version beside the champion."""
        settings = {"name": self.name, "tracking_uri": self.tracking_uri, **given(locals())}
        from lensmith.rollout.lifecycle import start

        return start(config.RolloutSettings.resolve(settings))

    def status(self) -> RolloutStatus:
        """The latest canary release with its figures over all replicas, and the earlier ones."""
        return next(self.watch())

    def watch(self) -> Iterator[RolloutStatus]:
        """The status again each time that the next one is asked for, over one connection; never ends."""
        from lensmith.rollout.status import StatusWatcher

        watcher = StatusWatcher(self.name, self.tracking_uri)
        while True:
            yield watcher.look()

    def promote(self, reason: str = "", force: bool = False) -> tuple[CanaryRelease, Decision]:
        """Promote the challenger: end the active canary release. The audit trail stores `reason`.

        Raises:
            ObjectionError: the guards object, and `force` is off.
        """
        from lensmith.rollout.lifecycle import end

        return end(self.name, "promoted", reason, self.tracking_uri, force)

    def abort(self, reason: str = "") -> tuple[CanaryRelease, Decision]:
        """Abort the active canary release: the champion answers all requests again. The audit trail stores `reason`."""
        from lensmith.rollout.lifecycle import end

        return end(self.name, "aborted", reason, self.tracking_uri)


@documented(config.TrackSettings)
def track_ui(
    *,
    host: str = default("127.0.0.1"), port: int = default(5000),
) -> None:  # fmt: skip
    """Serve MLflow's pages on this machine until stopped."""
    settings = config.TrackSettings.resolve(given(locals()))
    from lensmith.tracking.ui import ui as run

    run(settings)


def tracked_runs(limit: int = 20) -> Sequence[TrackedRun]:
    """List the runs that were tracked last, the newest first."""
    from lensmith.tracking.recent import recent

    return recent(limit)


def sync_runs(runs: Iterable[StrPath] = ()) -> SyncResult:
    """Send MLflow what did not arrive, of these run folders or of all in runs/."""
    from lensmith.tracking.sync import sync as run

    return run([Path(folder) for folder in runs])
