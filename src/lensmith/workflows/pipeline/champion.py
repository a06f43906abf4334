"""What a new model is compared with: the registry's champion, or a bundle that the file names."""

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
    """The model that answers now.

    Attributes:
        name: as people name it, such as flowers@3.
        content: SHA-256 of its bundle.json.
        version: in the registry; None: it is a bundle that the file names.
        path: of its bundle, if it is here already.
    """

    name: str
    content: str
    version: Version | None = None
    path: Path | None = None

    def bundle(self, file: PipelineFile) -> Bundle:
        """Its verified bundle, pulled where it is not here.

        Raises:
            RegistryError: no bundle behind it, or it cannot be had.
            BundleError: a damaged one.
        """
        if self.path is not None:
            return Bundle.load(self.path)
        from lensmith.registry.pull import pull

        client = connect(file, create=False)
        assert client is not None
        assert self.version is not None
        return Bundle.load(pull(client, self.version))


def find(file: PipelineFile) -> Champion | None:
    """Who it is now; None: there is none, or none is wanted.

    Raises:
        RegistryError: the registry does not answer, or the name that the file has for it means nothing.
        BundleError: no bundle where the file names one.
    """
    wanted = file.gate.champion if file.gate else "none"
    if wanted == "none":
        return None
    if wanted != "auto":
        from lensmith.registry.pull import locate

        path = Bundle.load(locate(wanted, file.register_.tracking_uri if file.register_ else None)).path
        return Champion(wanted, sha256(path / MANIFEST), path=path)
    client = connect(file, create=False)
    if client is None:
        return None
    from lensmith.registry.models import champion_of, names

    version = champion_of(client, file.model) if file.model in names(client) else None
    return Champion(f"{version.name}@{version.version}", version.content, version) if version else None


def connect(file: PipelineFile, create: bool) -> MlflowClient | None:
    """The registry; None: nothing is to be registered, or, with `create` off, it is a SQLite file that is not there."""
    if file.register_ is None:
        return None
    from lensmith.registry import client as store

    address = store.uri(file.register_.tracking_uri)
    database = store.sqlite_file(address)
    if not create and database is not None and not database.exists():
        return None
    return store.client(address, create)
