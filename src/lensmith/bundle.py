"""The bundle: a folder (or the same folder zipped) that holds all a service needs, and no Python class.

    bundle.json     what it is: labels in order, preprocessing, engines, metrics, provenance, SHA-256 of every file
    model.onnx      the graph: float32 (N, 3, S, S) → float32 (N, C) logits; others beside it, such as int8 ones
    golden.npz      a handful of real encoded images with the probabilities that the exporter saw
    report.html     the evaluation, to look at
    README.md       the model card

Loading verifies the schema and every hash; `lensmith.engine` verifies shapes and the golden samples.
No pickle anywhere. docs/bundle.md describes every field.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lensmith.errors import BundleError, OutputError
from lensmith.image import Preprocessing
from lensmith.machine import cache_dir

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
GOLDEN = "golden.npz"
GRAPH = "model.onnx"


class EngineRecord(BaseModel):
    """One way to run the bundle, as it was measured; or one that was tried in vain."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: str = Field(description="onnxruntime, openvino, onnxruntime-cuda or onnxruntime-tensorrt")
    precision: str = Field(description="fp32, bf16, fp16, int8 or int8-dynamic")
    graph: str | None = Field(description="file in the bundle; null: none is there, and `why` says why not")
    method: str = Field("", description="how an int8 graph was calibrated")
    kept: tuple[str, ...] = Field((), description="layers that were kept in fp32, since int8 there cost accuracy")
    accuracy: float | None = Field(None, description="share of right answers on the images of `judged`, 0..1")
    drop: float | None = Field(None, description="accuracy lost against PyTorch on the same images, in points of 100")
    agreement: float | None = Field(None, description="share of images with PyTorch's class, 0..1")
    largest_difference: float | None = Field(None, description="of a probability, from PyTorch")
    latency_ms: float | None = Field(None, description="one image alone on one core, bytes to answer, median")
    images_per_second: float | None = Field(None, description="bytes to answers on all cores allowed")
    memory_bytes: int | None = Field(None, description="by how much a process grew that loaded and ran it")
    load_s: float | None = Field(None, description="from files to the first answer, in seconds")
    bytes: int | None = Field(None, description="of its files")
    golden_tolerance: float = Field(1e-3, gt=0, description="largest allowed difference of a probability, golden.npz")
    needs: tuple[str, ...] = Field((), description="instruction sets, any of which it needs to be right and fast")
    pareto: bool = Field(False, description="no other is at least as good in accuracy, speed, latency and size")
    chosen: bool = False
    why: str = ""

    @property
    def name(self) -> str:
        """Engine and precision, such as `openvino-int8`: unique in a bundle."""
        return f"{self.engine}-{self.precision}"


class Abstention(BaseModel):
    """From which confidence on answers are given; below it they are marked as abstained."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    threshold: float = Field(ge=0, le=1, description="least confidence of an answer that is given")
    wanted: float = Field(gt=0, le=1, description="share of right answers among the given ones that was asked for")
    precision: float = Field(ge=0, le=1, description="that share on the validation part")
    coverage: float = Field(ge=0, le=1, description="share of images of the validation part that get an answer")


class Manifest(BaseModel):
    """The content of bundle.json. Unknown fields are passed over, so what later versions add does no harm."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    temperature: float = Field(default=1.0, gt=0)
    calibration: dict[str, Any] = {}
    abstention: Abstention | None = None
    engines: tuple[EngineRecord, ...] = Field(min_length=1)
    judged: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    parity: dict[str, Any] = {}
    dataset: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, str] = {}

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("labels should differ from one another")
        return labels


@dataclass(frozen=True)
class Golden:
    """Samples that every load must answer as the exporter saw them.

    Attributes:
        images: encoded files.
        probabilities: float32 (len(images), C), of the engine that was chosen when the bundle was made.
        others: the same of other engines, by their records' names.
    """

    images: tuple[bytes, ...]
    probabilities: npt.NDArray[np.float32]
    others: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def of(self, engine: str) -> npt.NDArray[np.float32]:
        """What the engine of that name answered."""
        return self.others.get(engine, self.probabilities)

    def save(self, path: Path, labels: Sequence[str]) -> None:
        """Write as an .npz without pickle: `probabilities`, `labels`, `image_0` … as uint8 arrays, `engine_NAME` …"""
        arrays: dict[str, Any] = {f"image_{i}": np.frombuffer(image, np.uint8) for i, image in enumerate(self.images)}
        arrays |= {f"{_ENGINE}{name}": answers for name, answers in self.others.items()}
        np.savez(
            path, allow_pickle=False, probabilities=self.probabilities, labels=np.array(labels, dtype=str), **arrays
        )

    @classmethod
    def read(cls, path: Path, labels: Sequence[str]) -> Golden:
        """Read what `save` wrote.

        Raises:
            BundleError: it is of another form, or was made for other labels.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                count = sum(name.startswith("image_") for name in arrays.files)
                images = tuple(arrays[f"image_{i}"].tobytes() for i in range(count))
                others = {n.removeprefix(_ENGINE): arrays[n] for n in arrays.files if n.startswith(_ENGINE)}
                golden, stored = cls(images, arrays["probabilities"], others), arrays["labels"].tolist()
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"Golden samples were expected in {path}.", f"{_reason(error)}.", _AGAIN) from error
        if not images or stored != list(labels):
            problem = "They were made for other labels, or in another order" if images else "There are none"
            raise BundleError(f"Golden samples of this bundle were expected in {path}.", f"{problem}.", _AGAIN)
        return golden


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk. Made by `Bundle.load` or `write`."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle folder or its zip and verify the schema and every hash.

        Raises:
            BundleError: nothing there, another schema, or a file that is missing or changed.
        """
        source = Path(path)
        folder = _unpack(source) if source.is_file() and zipfile.is_zipfile(source) else source
        manifest = _read_manifest(folder, source)
        for name in {GOLDEN, *(record.graph for record in manifest.engines if record.graph), *manifest.files}:
            file = folder / name
            if name not in manifest.files or not file.is_file() or sha256(file) != manifest.files[name]:
                state = "has changed since it was exported" if file.exists() else "is missing"
                raise BundleError(
                    f"Every file of the bundle {source} was expected as it was exported.", f"{name} {state}.", _AGAIN
                )
        return cls(folder, manifest)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the model's outputs."""
        return self.manifest.labels

    def golden(self) -> Golden:
        """The golden samples."""
        return Golden.read(self.path / GOLDEN, self.labels)

    def records(self, engine: str | None = None) -> tuple[EngineRecord, ...]:
        """The engines that can run the bundle, the chosen one first, then by preference; or those that are named.

        Args:
            engine: `openvino`, or with its precision, `openvino-int8`.

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
        """Write the bundle as one zip file at `path`; a finished file or none."""
        partial = path.with_name(path.name + ".partial")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in (*sorted(self.manifest.files), MANIFEST):
                    archive.write(self.path / name, name)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path


def write(path: Path, build: Callable[[Path], Manifest], *, replace: bool = False) -> Bundle:
    """Make a bundle at `path`: a finished folder or none.

    Args:
        path: where it goes; must not exist, unless `replace`.
        build: fills a staging folder and returns the manifest; `files` is filled in here.
        replace: put the new bundle in the place of an older one, once it is finished.

    Raises:
        OutputError: `path` is taken.
    """
    require_free(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        manifest = build(staging)
        names = sorted(file.relative_to(staging).as_posix() for file in staging.rglob("*") if file.is_file())
        manifest = manifest.model_copy(update={"files": {name: sha256(staging / name) for name in names}})
        (staging / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        staging.chmod(0o755)
        _put(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Bundle(path, manifest)


def require_free(path: Path, replace: bool) -> None:
    """Refuse a path that is taken, unless `replace` and what is there is a bundle.

    Raises:
        OutputError: it is taken.
    """
    if path.exists() and not (replace and _is_bundle(path)):
        raise OutputError(
            f"A free path was expected for the bundle {path}.",
            "Something is there.",
            "Name another with --out, or replace an older bundle with --overwrite.",
        )


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _is_bundle(path: Path) -> bool:
    if path.is_dir() or path.suffix != ".zip":
        return (path / MANIFEST).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return MANIFEST in archive.namelist()


def _put(staging: Path, path: Path) -> None:
    """Give the finished folder its name; what had it before is removed only then."""
    older = staging.with_name(staging.name + ".older")
    if path.exists():
        path.rename(older)
    try:
        staging.rename(path)
    except OSError:
        if older.exists():
            older.rename(path)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _read_manifest(folder: Path, said: Path) -> Manifest:
    """Read bundle.json in `folder`; errors name the path that the user `said`."""
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"A bundle (a folder or zip with {MANIFEST}) was expected at {said}.",
            "There is none." if not said.exists() else f"It holds no {MANIFEST}.",
            "Give the `bundle` folder of a run; `lensmith export RUN` makes one.",
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("schema_version") != SCHEMA_VERSION:
            raise BundleError(
                f"A bundle of schema {SCHEMA_VERSION} was expected at {said}.",
                f"It has schema {content.get('schema_version')}.",
                "Use the lensmith that wrote it, or export the run again with this one.",
            )
        return Manifest.model_validate(content)
    except ValueError as error:
        raise BundleError(f"A readable {MANIFEST} was expected in {said}.", f"{_reason(error)}.", _AGAIN) from error


def _unpack(archive: Path) -> Path:
    """Unpack a zipped bundle into the cache, keyed by the archive's hash; unpacked once.

    Raises:
        BundleError: the archive is damaged or holds no bundle.
    """
    target = cache_dir() / "bundles" / sha256(archive)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(staging)  # drops absolute and parent parts of names
        entries = list(staging.iterdir())
        # Whoever zips the folder by hand has it as the one entry at the top.
        top = entries[0] if len(entries) == 1 and entries[0].is_dir() else staging
        _read_manifest(top, archive)
        top.rename(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise BundleError(
            f"A whole zip was expected at {archive}.", f"It cannot be unpacked ({_reason(error)}).", _AGAIN
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


_ENGINE = "engine_"
_AGAIN = "Copy the bundle again, or export it again with `lensmith export RUN`."
