"""Settings of making a bundle, and of using one offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import Formats


class ExportSettings(Settings):
    """`lensmith export`."""

    verb = "export"
    positional = ("run",)

    run: Path | None = Field(None, description="Run folder that `lensmith train` made.")
    retune: Path | None = Field(
        None, description="Instead: measure this bundle's engines on this machine, and choose again among them."
    )
    target: Literal["cpu", "gpu", "edge", "all"] = Field(
        "cpu", description="Where it will run: says which engines and precisions are tried."
    )
    max_accuracy_drop: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Accuracy that an engine may lose against PyTorch, in points of 100; 0.5 by default, with --retune "
        "what the bundle was exported with.",
    )
    images: int = Field(
        1000, ge=1, description="Validation images that each candidate answers, at most; the chosen one answers all."
    )
    min_precision: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of right answers wanted; those less confident than it takes are marked as abstained.",
    )
    formats: Formats = Field(
        (),
        description="Also written, beside the bundle: pt2, torchscript, safetensors, openvino, tensorrt, triton, "
        "edge; as a,b,c. Target edge adds edge, gpu adds tensorrt and triton, all adds all.",
    )
    features: bool = Field(
        False,
        description="The graphs give the features before the head, too, by which the service tells drift.",
    )
    licence: str | None = Field(
        None, description="Terms of the model, for its card: apache-2.0, or in words; not stated by default."
    )
    data_licence: str | None = Field(
        None, description="Terms of the training images, for the card; not stated by default."
    )
    out: Path | None = Field(
        None, description="Bundle to write; RUN/bundle by default. A name ending in .zip is packed."
    )
    name: str | None = Field(None, description="Name in the bundle; the data folder's by default.")
    overwrite: bool = Field(False, description="Replace an older bundle.")
    tolerance: float = Field(
        1e-3, gt=0, description="Largest allowed difference of a probability from PyTorch, in fp32."
    )
    min_agreement: float = Field(
        0.999, gt=0, le=1, description="Smallest allowed share of images with the same top class, in fp32."
    )

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "a RUN or --retune BUNDLE is needed, and not both": lambda run, retune: (run is None) == (retune is None),
        "retune takes the bundle as it is, so formats, name, out and min_precision make no sense": (
            lambda retune, formats, name, out, min_precision: (
                retune is not None and (bool(formats) or (name, out, min_precision) != (None, None, None))
            )
        ),
        "retune takes the bundle as it is, so features, licence and data_licence make no sense": (
            lambda retune, features, licence, data_licence: (
                retune is not None and (features or (licence, data_licence) != (None, None))
            )
        ),
    }


class EvaluateSettings(Settings):
    """`lensmith evaluate`."""

    verb = "evaluate"
    positional = ("bundle", "data")

    bundle: Path = Field(description="Bundle folder or zip, or NAME@ALIAS in the registry.")
    data: Path = Field(description="Labelled images: a folder, or a CSV of path,label.")
    part: Literal["auto", "train", "val", "test", "all"] = Field(
        "auto", description="auto: the test part where there is one, else all."
    )
    engine: str | None = Field(
        None, description="Another of the bundle's engines than the chosen one, as openvino or openvino-int8."
    )
    out: Path | None = Field(None, description="Where the HTML report and JSON go; evaluation/ by default.")


class PredictSettings(Settings):
    """`lensmith predict`."""

    verb = "predict"
    positional = ("bundle", "images")

    bundle: Path = Field(description="Bundle folder or zip, or NAME@ALIAS in the registry.")
    images: list[str] = Field(min_length=1, description="Image files, folders, or - for paths on standard input.")
    top_k: int = Field(1, ge=1, description="Classes to name for each image.")
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="Output format; by the ending of --out, else csv."
    )
    out: Path | None = Field(None, description="File to write; standard output by default.")
    engine: str | None = Field(
        None, description="Another of the bundle's engines than the chosen one, as openvino or openvino-int8."
    )
