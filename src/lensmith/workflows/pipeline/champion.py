"""The champion that a new model is compared with: the registry's, or a bundle that the file names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config.pipeline import PipelineFile
from lensmith.core.files import sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Champion:
    """The model that serves requests now.

    Attributes:
        name: the model's display name, such as flowers@3.
        content: SHA-256 of the bundle's bundle.json.
        load: function that returns its verified bundle, pulled from the registry where it is not on this machine.
    """

    name: str
    content: str
    load: Callable[[], Bundle]


def find_champion(file: PipelineFile) -> Champion | None:
    """The current champion; None if there is none, or the file asks for no comparison.

    Raises:
        RegistryError: the registry does not answer, or does not know the name in the file.
        BundleError: no bundle at the path in the file.
    """
    wanted = file.gate.champion if file.gate else "none"
    if wanted == "none":
        return None
    if wanted != "auto":
        from lensmith.registry.pull import locate

        bundle = Bundle.load(locate(wanted, file.tracking_uri))
        return Champion(wanted, sha256(bundle.path / MANIFEST), lambda: bundle)
    client = connect(file, create=False)
    if client is None:
        return None
    from lensmith.registry.models import champion_of, names
    from lensmith.registry.pull import pull

    version = champion_of(client, file.model) if file.model in names(client) else None
    if version is None:
        return None
    return Champion(f"{version.name}@{version.version}", version.content, lambda: Bundle.load(pull(client, version)))


def connect(file: PipelineFile, create: bool) -> MlflowClient | None:
    """A client of the registry; None if nothing is to be registered.

    Without `create` it is None, too, where the registry is a SQLite file that does not exist.
    """
    if file.register_ is None:
        return None
    from lensmith.registry import client as store

    address = store.uri(file.tracking_uri)
    database = store.sqlite_file(address)
    if not create and database is not None and not database.exists():
        return None
    return store.client(address, create)
