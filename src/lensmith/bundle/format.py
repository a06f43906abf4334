"""The bundle format: a folder (or the same folder zipped) with all that a service needs, and no Python class.

    bundle.json     the manifest: labels in order, preprocessing, engines, metrics, provenance, SHA-256 of every file
    model.onnx      the graph: float32 (N, 3, S, S) → float32 (N, C) logits; others beside it, such as int8 ones
    golden.npz      golden samples: a few real encoded images with the probabilities of the export
    image_hashes.npz  content hashes of the images that the model learnt from or was chosen on
    report.html     the evaluation's report
    README.md       the model card

Loading verifies the schema and every hash; `inference.engine` verifies shapes and the golden samples; `archive` packs
and unpacks. No pickle anywhere. `make docs` writes docs/bundle.md and its schema from the descriptions here.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lensmith.bundle import archive, image_hashes
from lensmith.bundle.drift import Reference
from lensmith.bundle.golden import REMEDY, Golden
from lensmith.bundle.image_hashes import ImageHashes, ImageHashesEntry
from lensmith.core.files import atomic_write, replace_directory, sha256, staging_directory
from lensmith.core.machine import cache_dir
from lensmith.core.text import first_line, listed
from lensmith.errors import BundleError, OutputError
from lensmith.imaging.preprocessing import Preprocessing

SCHEMA_VERSION = 1
"""Raised only by a change that an older reader would misread; unknown fields are ignored."""

MANIFEST = "bundle.json"
GOLDEN = "golden.npz"
GRAPH = "model.onnx"

MAX_MANIFEST_BYTES = 32 << 20
"""Twenty times the size of a manifest with 20,000 labels; JSON takes ten times its size in memory."""


class EngineRecord(BaseModel):
    """One engine at one precision with its measurements; or a candidate that cannot run the bundle, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: str = Field(description="onnxruntime, openvino, onnxruntime-cuda or onnxruntime-tensorrt")
    precision: str = Field(description="fp32, bf16, fp16, int8 or int8-dynamic")
    graph: str | None = Field(description="file in the bundle; null: none is there, and `why` says why not")
    method: str = Field("", description="calibration method of an int8 graph")
    kept: tuple[str, ...] = Field((), description="layers that were left in fp32, since int8 there cost accuracy")
    accuracy: float | None = Field(None, description="share of correct answers on the images of `judged`, 0..1")
    drop: float | None = Field(None, description="accuracy lost against the run's own answers, in percentage points")
    agreement: float | None = Field(None, description="share of images with PyTorch's class, 0..1")
    largest_difference: float | None = Field(None, description="largest difference of a probability from PyTorch")
    latency_ms: float | None = Field(
        None, description="median time of one image alone on one core, from bytes to answer, in milliseconds"
    )
    images_per_second: float | None = Field(None, description="throughput from bytes to answers on all cores allowed")
    memory_bytes: int | None = Field(None, description="growth of a process that loads and runs the engine")
    load_s: float | None = Field(None, description="time from files to the first answer, in seconds")
    bytes: int | None = Field(None, description="size of the graph's files")
    golden_tolerance: float = Field(1e-3, gt=0, description="largest allowed difference of a probability in golden.npz")
    needs: tuple[str, ...] = Field((), description="instruction sets; the engine needs one to be correct and fast")
    pareto: bool = Field(False, description="on the Pareto front of accuracy, speed, latency and size")
    chosen: bool = Field(False, description="selected to run the bundle wherever it can; one engine is")
    why: str = Field("", description="why the engine was selected, was not, or has no graph, for people")

    @property
    def name(self) -> str:
        """Engine and precision, such as `openvino-int8`: unique in a bundle."""
        return f"{self.engine}-{self.precision}"


class Abstention(BaseModel):
    """Abstention: answers below a confidence threshold are marked as abstained."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    threshold: float = Field(ge=0, le=1, description="least confidence of a given answer")
    wanted: float = Field(gt=0, le=1, description="share of correct answers among the given ones that was asked for")
    precision: float = Field(ge=0, le=1, description="that share on the validation part")
    coverage: float = Field(ge=0, le=1, description="share of images of the validation part that get an answer")


class Manifest(BaseModel):
    """The content of bundle.json. Unknown fields are ignored, so that later versions can add some."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = Field(SCHEMA_VERSION, description="version of this format; readers refuse other versions")
    name: str = Field(description="name of the model, also in the service's answers")
    version: str = Field(description="the run and the epoch that the bundle was exported from")
    created: datetime = Field(
        default_factory=lambda: datetime.now(UTC).replace(microsecond=0), description="time of the export, in UTC"
    )
    labels: tuple[str, ...] = Field(min_length=2, description="class names in the order of the outputs, each once")
    preprocessing: Preprocessing = Field(description="resizing and normalisation, from a picture to the graph's input")
    temperature: float = Field(1.0, gt=0, description="temperature scaling: divisor of the logits before the softmax")
    calibration: dict[str, Any] = Field({}, description="confidence calibration: the fitted temperature and its effect")
    abstention: Abstention | None = Field(None, description="threshold below which answers abstain; null: none")
    engines: tuple[EngineRecord, ...] = Field(min_length=1, description="engines by preference, then failed candidates")
    judged: dict[str, Any] = Field({}, description="the images on which the engines' accuracy was measured")
    machine: dict[str, Any] = Field({}, description="the machine on which the engines were measured")
    teacher: dict[str, Any] = Field({}, description="of a distilled student: the teacher's engine, on the same images")
    metrics: dict[str, Any] = Field({}, description="metrics of the selected engine, and their part; see evaluation.md")
    parity: dict[str, Any] = Field({}, description="differences of the selected engine's answers from PyTorch's")
    reference: Reference | None = Field(None, description="statistics of the validation part; see drift.md")
    licence: dict[str, str] = Field({}, description="terms of `model`, `data` and `first_weights`; missing: not stated")
    formats: dict[str, int] = Field({}, description="training images by the format of their files, as `jpeg`: number")
    dataset: dict[str, Any] = Field({}, description="training data: root, parts, and a fingerprint of the files")
    image_hashes: ImageHashesEntry | None = Field(
        None, description="images whose content hashes are in image_hashes.npz; null: there is no such file"
    )
    recipe: dict[str, Any] = Field({}, description="settings of the training, the best epoch, the first weights")
    versions: dict[str, str] = Field({}, description="versions of the packages that trained and exported the model")
    files: dict[str, str] = Field({}, description="SHA-256 of every file but bundle.json, by its path in the folder")

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("labels should differ from one another")
        return labels

    @field_validator("reference")
    @classmethod
    def _reference_is_of_these_labels(cls, reference: Reference | None, info: ValidationInfo) -> Reference | None:
        if reference is not None and len(reference.classes) != len(info.data.get("labels", reference.classes)):
            raise ValueError("the reference should count each of the labels")
        return reference


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


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write bundle.json into a bundle's folder, whole or not at all."""
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


OTHER_FILES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".onnx", ".pt", ".pth")
"""Endings of archives and of models in other formats that a bundle, which is a folder or a zip, must not have."""


def require_free(path: Path, replace: bool) -> None:
    """Refuse a path that is taken, unless `replace` and a bundle is there, and the ending of a file other than a zip.

    Raises:
        OutputError: the path is taken, or would look like a file that it is not.
    """
    if path.suffix.lower() in OTHER_FILES or path.suffix != path.suffix.lower() == ".zip":
        raise OutputError(
            "A folder, or a file that ends in .zip, was expected for the bundle.",
            f"{path} arrived.",
            f"Name it {path.with_suffix('.zip').name}.",
        )
    holds_bundle = (path / MANIFEST).is_file() or (path.suffix == ".zip" and archive.holds(path, MANIFEST))
    if path.exists() and not (replace and holds_bundle):
        raise OutputError(
            f"A free path was expected for the bundle {path}.",
            "Something is there.",
            "Name another with --out, or replace an older bundle with --overwrite.",
        )


def _read_manifest(folder: Path, path: Path) -> Manifest:
    """Read bundle.json in `folder`; errors name `path`, which the user gave."""
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"A bundle (a folder or zip with {MANIFEST}) was expected at {path}.",
            f"It holds no {MANIFEST}." if path.exists() else "There is none.",
            "Give the `bundle` folder of a run; `lensmith export RUN` makes one.",
        )
    if (size := file.stat().st_size) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"A {MANIFEST} of at most {MAX_MANIFEST_BYTES:,} bytes was expected in {path}.", f"It has {size:,}.", REMEDY
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            _require_schema(content.get("schema_version"), path)
        return Manifest.model_validate(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"A readable {MANIFEST} was expected in {path}.", f"{_reason(error)}.", REMEDY) from error


def _require_schema(version: object, path: Path) -> None:
    """Refuse another schema, before the fields are read, whose meaning depends on it."""
    if type(version) is not int:  # True would be one
        raise BundleError(
            f"A number as schema_version was expected in {MANIFEST} of {path}.", f"{version!r:.40} arrived.", REMEDY
        )
    if version != SCHEMA_VERSION:
        whose, remedy = "an earlier", "Export the run again with this lensmith: lensmith export RUN"
        if version > SCHEMA_VERSION:
            whose, remedy = "a later", "Upgrade lensmith: pip install --upgrade lensmith."
        raise BundleError(
            f"A bundle of schema {SCHEMA_VERSION} was expected at {path}.",
            f"It has schema {version}, of {whose} lensmith.",
            remedy,
        )


def _verified(folder: Path, path: Path) -> Manifest:
    """The manifest of the bundle in `folder`, after every file was verified; errors name `path`."""
    manifest = _read_manifest(folder, path)
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


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return first_line(error)
