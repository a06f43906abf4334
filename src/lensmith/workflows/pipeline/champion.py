"""The champion that a new model is compared with: the registry's, or a bundle that the file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config.pipeline import PipelineFile
from lensmith.core.files import sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from lensmith.registry.models import Version


@dataclass(frozen=True)
class Champion:
    """The model that serves requests now.

    Attributes:
        name: the model's display name, such as flowers@3.
        content: SHA-256 of the bundle's bundle.json.
        version: the version in the registry; None if the file names a bundle.
        path: folder of the bundle, if it is on this machine already.
    """

    name: str
    content: str
    version: Version | None = None
    path: Path | None = None

    def bundle(self, file: PipelineFile) -> Bundle:
        """The champion's verified bundle, pulled from the registry where it is not on this machine.

        Raises:
            RegistryError: the version has no bundle, or it cannot be downloaded.
            BundleError: a damaged bundle.
        """
        if self.path is not None:
            return Bundle.load(self.path)
        from lensmith.registry.pull import pull

        client = connect(file, create=False)
        assert client is not None
        assert self.version is not None
        return Bundle.load(pull(client, self.version))


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

        path = Bundle.load(locate(wanted, file.tracking_uri)).path
        return Champion(wanted, sha256(path / MANIFEST), path=path)
    client = connect(file, create=False)
    if client is None:
        return None
    from lensmith.registry.models import champion_of, names

    version = champion_of(client, file.model) if file.model in names(client) else None
    return Champion(f"{version.name}@{version.version}", version.content, version) if version else None


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
