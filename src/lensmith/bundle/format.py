"""The bundle format: a folder (or the same folder zipped) with all that a service needs, and no Python class.

    bundle.json     the manifest: labels in order, preprocessing, engines, metrics, provenance, SHA-256 of every file
    model.onnx      the graph: float32 (N, 3, S, S) → float32 (N, C) logits; others beside it, such as int8 ones
    golden.npz      golden samples: a few real encoded images with the probabilities of the export
    image_hashes.npz  content hashes of the images that the model learnt from or was chosen on
    report.html     the evaluation's report
    README.md       the model card

Loading verifies the schema and every hash; `inference.engine` verifies shapes and the golden samples; `archive` packs
and unpacks. No pickle anywhere.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lensmith.bundle import archive, image_hashes
from lensmith.bundle.golden import REMEDY, Golden
from lensmith.bundle.image_hashes import ImageHashes
from lensmith.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    Abstention,
    EngineRecord,
    Manifest,
    read_manifest,
    write_manifest,
)
from lensmith.core.files import replace_directory, sha256, staging_directory
from lensmith.core.machine import cache_dir
from lensmith.core.output_names import FILE_ENDINGS
from lensmith.core.text import listed
from lensmith.errors import BundleError, OutputError

__all__ = [
    "GOLDEN", "GRAPH", "MANIFEST", "MAX_MANIFEST_BYTES", "SCHEMA_VERSION", "Abstention", "Bundle", "EngineRecord",
    "Manifest", "require_free", "seal", "write", "write_manifest",
]  # fmt: skip

GOLDEN = "golden.npz"
GRAPH = "model.onnx"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk.

    Attributes:
        path: folder of the bundle.
        manifest: the content of bundle.json.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Open a bundle folder or its zip and verify the schema and every hash.

        Raises:
            BundleError: nothing there, another schema, a file that is missing or changed, a name that leads out of the
                folder, or a zip that `lensmith.bundle.archive.unpack` refuses.
            OutputError: a zip, and no room to unpack it.
        """
        source = folder = Path(path)
        try:
            packed = source.is_file()
        except OSError as error:  # too long a name, a folder that may not be entered
            raise BundleError(
                f"A bundle (a folder or zip with {MANIFEST}) was expected at {path}.",
                f"It cannot be read ({error.strerror}).",
                "Check the path and rights.",
            ) from error
        if packed:
            folder = archive.unpack(source, cache_dir() / "bundles" / sha256(source), MANIFEST)
        try:
            return cls(folder, _verified(folder, source))
        except BundleError:
            if folder != source:  # the next try unpacks it anew
                shutil.rmtree(folder, ignore_errors=True)
            raise

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the model's outputs."""
        return self.manifest.labels

    def golden(self) -> Golden:
        """Read the golden samples."""
        return Golden.read(self.path / GOLDEN, self.labels)

    def image_hashes(self) -> ImageHashes | None:
        """Read the hashes of the images that the model learnt from or was chosen on; None: the bundle has none."""
        entry = self.manifest.image_hashes
        return None if entry is None else ImageHashes.read(self.path / image_hashes.FILE, entry.complete)

    def records(self, engine: str | None = None) -> tuple[EngineRecord, ...]:
        """Engines that can run the bundle, the selected one first, then by preference.

        Args:
            engine: name of the engines wanted: `openvino`, or with its precision, `openvino-int8`.

        Raises:
            BundleError: no engine of the bundle has that name.
        """
        runnable = sorted((r for r in self.manifest.engines if r.graph), key=lambda record: not record.chosen)
        found = tuple(record for record in runnable if engine in (None, record.engine, record.name))
        if not found:
            raise BundleError(
                f"An engine that the bundle {self.path} was exported for was expected: "
                f"{', '.join(record.name for record in runnable) or 'it has none'}.",
                f"{engine or 'None'} arrived.",
                "Name one of those, or leave the engine out.",
            )
        return found

    def pack(self, path: Path) -> Path:
        """Write the bundle as one zip file, whole or not at all."""
        return archive.pack(self.path, (*sorted(self.manifest.files), MANIFEST), path)


def write(path: Path, build: Callable[[Path], Manifest]) -> Bundle:
    """Write a bundle folder, whole or not at all.

    Args:
        path: folder to make; must not exist.
        build: fills a staging folder and returns the manifest, without hashes.

    Raises:
        OutputError: `path` is taken.
    """
    require_free(path, replace=False)
    with staging_directory(path) as staging:
        made = seal(staging, build(staging))
        replace_directory(staging, path)
    return Bundle(path, made.manifest)


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Complete a folder as a bundle: write bundle.json with the hash of every file in the folder."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    manifest = manifest.model_copy(update={"files": {name: sha256(folder / name) for name in names}})
    write_manifest(manifest, folder)
    return Bundle(folder, manifest)


def require_free(path: Path, replace: bool) -> None:
    """Refuse a path that is taken, unless `replace` and a bundle is there, and the ending of a file other than a zip.

    Raises:
        OutputError: the path is taken, or would look like a file that it is not.
    """
    if path.suffix != ".zip" and path.suffix.lower() in FILE_ENDINGS and not path.is_dir():
        raise OutputError(
            "A folder, or a file that ends in .zip, was expected for the bundle.",
            f"{path} arrived.",
            f"Name it {path.name.partition('.')[0]}.zip.",
        )
    holds_bundle = (path / MANIFEST).is_file() or (path.suffix == ".zip" and archive.holds(path, MANIFEST))
    if path.exists() and not (replace and holds_bundle):
        raise OutputError(
            f"A free path was expected for the bundle {path}.",
            "Something is there.",
            "Name another with --out, or replace an older bundle with --overwrite.",
        )


def _verified(folder: Path, path: Path) -> Manifest:
    """The manifest of the bundle in `folder`, after every file was verified; errors name `path`."""
    manifest = read_manifest(folder, path)
    needed = {GOLDEN, *([image_hashes.FILE] if manifest.image_hashes else [])}
    names = sorted({*needed, *(record.graph for record in manifest.engines if record.graph), *manifest.files})
    for name in names:  # all names before one file is opened
        if problem := archive.unsafe(name):
            raise BundleError(
                f"Names of files within the bundle were expected in {MANIFEST} of {path}.",
                f"It names {name[:80]!r}, which {problem}.",
                "Do not trust it: get the bundle again from where it was made.",
            )
    problems = []
    for name in names:
        file, digest = folder / name, manifest.files.get(name)
        if not file.exists():
            problems.append(f"{name} is missing")
        elif not (file.is_file() and digest and sha256(file) == digest):
            problems.append(f"{name} has changed since it was exported")
    if problems:
        raise BundleError(
            f"Every file of the bundle {path} was expected as it was exported.", f"{listed(problems)}.", REMEDY
        )
    return manifest
