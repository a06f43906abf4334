"""Settings of `lensmith export`, `evaluate` and `predict`: bundles made and used offline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import EXCLUDE, LAYOUT, RELABEL, Formats, Layout


class ExportSettings(Settings):
    """`lensmith export`."""

    verb = "export"
    positional = ("run",)
    renamed: ClassVar[Mapping[str, str]] = {"name": "bundle_name"}
    panels: ClassVar[Mapping[str, str]] = {
        "Content of the bundle": "formats features bundle_name licence data_licence",
        "Limits": "images min_precision tolerance min_agreement",
    }

    run: Path | None = Field(None, description="Run folder of `lensmith train`.")
    retune: Path | None = Field(
        None, description="Measure this bundle's engines on this machine, and select again; instead of a run."
    )
    target: Literal["cpu", "gpu", "edge", "all"] = Field(
        "cpu", description="Kind of machine that will serve; it decides which engines and precisions are measured."
    )
    max_accuracy_drop: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Largest loss of accuracy against the run's figure, in percentage points; "
        "by default 0.5, or the bundle's.",
    )
    images: int = Field(
        1000, ge=1, description="Most validation images for each candidate; all of them for the selected engine."
    )
    min_precision: float | None = Field(
        None, gt=0, le=1, description="Precision to reach by abstaining from answers with low confidence."
    )
    formats: Formats = Field(
        (),
        description="Further formats to write beside the bundle, as a,b,c: pt2, torchscript, safetensors, openvino, "
        "tensorrt, triton, edge. Target edge adds edge, gpu adds tensorrt and triton, all adds all.",
    )
    features: bool = Field(
        False, description="Also output the features before the head, from which the service detects drift."
    )
    licence: str | None = Field(
        None, description="Licence of the model for its model card, as apache-2.0 or in words; not stated by default."
    )
    data_licence: str | None = Field(
        None, description="Licence of the training images for the model card; not stated by default."
    )
    out: Path | None = Field(
        None, description="Bundle to write; RUN/bundle by default. A name that ends in .zip makes one zip file."
    )
    bundle_name: str | None = Field(
        None, description="Name of the model in the bundle; that of the data folder by default."
    )
    overwrite: bool = Field(False, description="Replace an older bundle.")
    tolerance: float = Field(1e-3, gt=0, description="Parity: largest difference of an fp32 probability from PyTorch.")
    min_agreement: float = Field(
        0.999, gt=0, le=1, description="Parity: smallest share of images with PyTorch's top class, in fp32."
    )

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "a RUN or --retune BUNDLE is needed, and not both": lambda run, retune: (run is None) == (retune is None),
        "retune does not change the bundle, so formats, bundle_name, out and min_precision make no sense": (
            lambda retune, formats, bundle_name, out, min_precision: (
                retune is not None and (bool(formats) or (bundle_name, out, min_precision) != (None, None, None))
            )
        ),
        "retune does not change the bundle, so features, licence and data_licence make no sense": (
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
        "auto",
        description="Part of the split to evaluate on; auto: test if there is one, else val, else all. Images that the "
        "model learnt from or was chosen on are left out, except of the parts train and val.",
    )
    layout: Layout = Field("auto", description=LAYOUT)
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    engine: str | None = Field(
        None, description="Engine of the bundle to use instead of the selected one, as openvino or openvino-int8."
    )
    out: Path | None = Field(None, description="Folder for the HTML report and the JSON; evaluation/ by default.")


class PredictSettings(Settings):
    """`lensmith predict`."""

    verb = "predict"
    positional = ("bundle", "images")

    bundle: Path = Field(description="Bundle folder or zip, or NAME@ALIAS in the registry.")
    images: list[str] = Field(min_length=1, description="Image files, folders, or - to read paths from standard input.")
    top_k: int = Field(1, ge=1, description="Number of classes in each prediction.")
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="Output format; by default that of the ending of --out; csv without --out."
    )
    out: Path | None = Field(None, description="File to write; standard output by default.")
    engine: str | None = Field(
        None, description="Engine of the bundle to use instead of the selected one, as openvino or openvino-int8."
    )
