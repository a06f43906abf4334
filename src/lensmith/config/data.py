"""Settings of `lensmith data fetch`, `check`, `split`, `doctor` and `agreement`, and of `lensmith demo`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from lensmith.config.base import Settings
from lensmith.config.values import (
    EXCLUDE,
    GROUP,
    LAYOUT,
    RELABEL,
    AnnotationFormat,
    ConsensusMethod,
    Group,
    LabelFormat,
    Layout,
    Names,
    Ratio,
    Side,
)


class FetchSettings(Settings):
    """`lensmith data fetch`."""

    verb, command = "fetch", "data fetch"
    positional = ("name", "folder")

    name: str = Field(description="Data set: fashion-mnist, cifar10, flowers102, pets or digits.")
    folder: Path = Field(description="Image folder to write.")
    max_train: int | None = Field(None, ge=1, description="Most training images, drawn evenly from the classes.")
    max_test: int | None = Field(None, ge=1, description="Most test images, drawn evenly from the classes.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the draw.")


class CheckSettings(Settings):
    """`lensmith data check`."""

    verb, command = "check", "data check"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    layout: Layout = Field("auto", description=LAYOUT)
    group: Group = Field("none", description=GROUP)
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    near: bool = Field(
        False, description="Search for near copies: resized, encoded anew, mirrored, turned or cropped pictures."
    )
    out: Path | None = Field(None, description="Page of the near copies, HTML; near-copies.html by default.")

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "out is the page of near copies, and needs near": lambda out, near: out is not None and not near,
    }


class SplitSettings(Settings):
    """`lensmith data split`."""

    verb, command = "split", "data split"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label.")
    ratio: Ratio = Field((5, 3, 2), description="Shares of train, val and test.")
    cv: int | None = Field(
        None, ge=2, description="Cross-validation: number of folds that are written, as a column, in place of parts."
    )
    layout: Layout = Field("auto", description=LAYOUT)
    group: Group = Field("none", description=GROUP)
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the shuffle.")
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    out: Path | None = Field(None, description="Manifest to write; FOLDER/splits.csv by default.")
    overwrite: bool = Field(False, description="Divide anew what an older manifest has divided.")

    contradictions: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "ratio divides images into parts and cv into folds, so one of them must do": lambda ratio, cv: (
            cv is not None and ratio != (5, 3, 2)
        )
    }


class ImportSettings(Settings):
    """`lensmith data import`."""

    verb, command = "import", "data import"
    positional = ("source", "out")

    source: Path = Field(description="Folder with annotations and pictures, or an annotation file in it.")
    out: Path = Field(description="Manifest to write, a CSV.")
    format: AnnotationFormat = Field(
        "auto",
        description="Annotation format: auto finds it by looking, or cvat, label-studio, label-studio-min, "
        "label-studio-csv, imagenet, imagenet-txt, datumaro, voc, coco, yolo, createml, fiftyone.",
    )
    classes: Names | None = Field(None, description="Class names that are allowed, with commas; others are an error.")
    attribute: str | None = Field(None, description="Attribute of labels whose values are the classes.")
    crops: Path | None = Field(
        None, description="Folder to write the crops of boxes into; without it they are cut when they are read."
    )
    margin: float = Field(0.0, ge=0, le=10, description="Share of a box's sides that its crop has more on each side.")
    overwrite: bool = Field(False, description="Replace an older manifest.")


class AgreementSettings(Settings):
    """`lensmith data agreement`."""

    verb, command = "agreement", "data agreement"
    positional = ("sources",)

    sources: list[Path] = Field(
        min_length=1,
        description="CSV of path,label,annotator, annotations of a labelling tool, or a file for each annotator.",
    )
    consensus: ConsensusMethod = Field("majority", description="How several labels of an image become one.")
    out: Path | None = Field(
        None,
        description="Manifest to write with the consensus; contested.csv and agreement.html are written beside it.",
    )
    overwrite: bool = Field(False, description="Replace older files.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the intervals' resamples.")


class LabelExportSettings(Settings):
    """`lensmith data export`."""

    verb, command = "export_labels", "data export"
    positional = ("data",)

    data: Path = Field(description="Manifest, annotation file, or folder of images, labelled or not.")
    format: LabelFormat = Field("label-studio", description="Annotation format to write.")
    out: Path = Field(Path("labels"), description="New folder for the files.")
    predictions: Path | None = Field(
        None, description="Bundle, or NAME@ALIAS, whose answers become pre-annotations; none by default."
    )
    layout: Layout = Field("auto", description=LAYOUT)


class LabelDoctorSettings(Settings):
    """`lensmith data doctor`."""

    verb, command = "label_doctor", "data doctor"
    positional = ("folder",)

    folder: Path = Field(description="Image folder, or a CSV of path,label[,split].")
    out: Path | None = Field(None, description="Folder for the page and the lists; doctor/FOLDER by default.")
    layout: Layout = Field("auto", description=LAYOUT)
    group: Group = Field("none", description=GROUP)
    exclude: Path | None = Field(None, description=EXCLUDE)
    relabel: Path | None = Field(None, description=RELABEL)
    model: str = Field("tf_efficientnet_lite0", description="Backbone of the features; `lensmith models` lists them.")
    weights: Path | None = Field(None, description="Other weights of the backbone: a file, a folder, or hf:OWNER/NAME.")
    image_size: Side | None = Field(None, description="Image side in pixels; the backbone's own by default.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the folds.")
    overwrite: bool = Field(False, description="Replace older lists even where they were edited.")


class DemoSettings(Settings):
    """`lensmith demo`."""

    verb = "demo"

    out: Path = Field(Path("runs/demo"), description="Folder for data, run and report; a second demo reuses it.")
    train_images: int = Field(6000, ge=100, description="Number of training images.")
    test_images: int = Field(2000, ge=20, description="Number of test images.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all random numbers.")
    port: int = Field(0, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    keep_serving: bool = Field(False, description="Leave the service running at the end.")
