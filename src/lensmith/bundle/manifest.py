"""Manifest of a bundle (bundle.json): fields, reading and writing.

`make docs` writes docs/bundle.md and its schema from the descriptions here.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lensmith.bundle.drift import Reference
from lensmith.bundle.golden import REMEDY
from lensmith.bundle.image_hashes import ImageHashesEntry
from lensmith.core.files import atomic_write
from lensmith.core.text import first_line
from lensmith.errors import BundleError
from lensmith.imaging.preprocessing import Preprocessing

SCHEMA_VERSION = 1
"""Raised only by a change that an older reader would misread; unknown fields are ignored."""

MANIFEST = "bundle.json"
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
    answers: int | None = Field(None, ge=0, description="number of validation images with such an answer")

    @property
    def doubt(self) -> str:
        """A clause for people where so few answers cannot support what was asked for, even without a mistake."""
        if self.answers is None:
            return ""
        most = (self.answers + 1) / (self.answers + 2)  # Laplace's rule of succession
        if most >= self.wanted:
            return ""
        return f"{self.answers:,} answers support {most:.1%} at most, and {100 * self.wanted:.4g}% were asked for"


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
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each answer that is spread evenly over the classes after the softmax"
    )
    calibration: dict[str, Any] = Field({}, description="confidence calibration: the fitted temperature and its effect")
    abstention: Abstention | None = Field(None, description="threshold below which answers abstain; null: none")
    engines: tuple[EngineRecord, ...] = Field(min_length=1, description="engines by preference, then failed candidates")
    judged: dict[str, Any] = Field({}, description="the images on which the engines' accuracy was measured")
    machine: dict[str, Any] = Field({}, description="the machine on which the engines were measured")
    teacher: dict[str, Any] = Field({}, description="of a distilled student: the teacher's engine, on the same images")
    metrics: dict[str, Any] = Field(
        {},
        description="metrics of the selected engine, or of the folds' models, and their part; see evaluation.md",
    )
    cross_validation: dict[str, Any] = Field(
        {},
        description="figures of a cross-validation: of the folds' models, not of the bundle's; empty: there was none",
    )
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


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write bundle.json into a bundle's folder, whole or not at all."""
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path, path: Path) -> Manifest:
    """Read bundle.json in `folder`.

    Args:
        folder: folder of the bundle.
        path: the path that the user gave, for errors.

    Raises:
        BundleError: nothing there, another schema, or a file that is no such JSON or too large.
    """
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


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return first_line(error)
