"""Snapshot of a bundle: what a generation of workers serves, whatever becomes of the bundle on disk meanwhile.

A worker that replaces a dead one must serve what the others serve, also after the bundle was replaced or removed.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lensmith.bundle.format import MANIFEST
from lensmith.core.files import sha256
from lensmith.errors import BundleError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BundleSnapshot:
    """A bundle as it was at one moment.

    Attributes:
        source: path of the bundle.
        copy: path of the snapshot, of hard links where the file system allows; None: it could not be made.
        digest: SHA-256 of the manifest, which holds those of all files, or of the zip; None: there was no bundle.
    """

    source: Path
    copy: Path | None
    digest: str | None

    @classmethod
    def take(cls, source: Path, folder: Path) -> "BundleSnapshot":
        """A snapshot of the bundle at `source` in a new folder; never raises.

        Where there is no bundle, or no room, workers read from `source`, and report what is wrong there.
        """
        copy = folder / "bundle"
        try:
            folder.mkdir(parents=True)
            if source.is_dir():
                shutil.copytree(source, copy, copy_function=_link_or_copy)
            else:
                _link_or_copy(source, copy)
            return cls(source, copy, _digest(copy))
        except (OSError, shutil.Error) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if source.exists():
                logger.warning("no snapshot of %s could be taken: %s", source, error)
        try:
            return cls(source, None, _digest(source))
        except OSError:
            return cls(source, None, None)

    def path(self) -> Path:
        """The path to load the bundle from.

        Raises:
            BundleError: neither the snapshot nor the source is what it was.
        """
        if self.digest is None:
            return self.source
        for path in (self.copy, self.source):
            try:
                if path is not None and _digest(path) == self.digest:
                    return path
            except OSError:
                continue
        raise BundleError(
            f"The bundle that was at {self.source} when the service loaded it was expected.",
            "Another is there now, and the copy of the old one is gone or was changed.",
            "Send SIGHUP to serve the new one.",
        )


def _digest(bundle: Path) -> str:
    return sha256(bundle / MANIFEST if bundle.is_dir() else bundle)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        if Path(source).name == MANIFEST:  # small, and the one file that people change in place
            raise OSError
        os.link(source, target)
    except OSError:  # also another file system, or one without hard links
        shutil.copyfile(source, target)
