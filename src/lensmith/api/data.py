"""Image folders: fetch a known set, check every file, split into parts."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lensmith import config
from lensmith.api.arguments import StrPath, bundle_of, default, documented, given, located

if TYPE_CHECKING:
    from lensmith.curation.label_doctor import LabelDoctorResult
    from lensmith.curation.next_labels import NextLabels
    from lensmith.data.annotators import AgreementResult
    from lensmith.data.fetch import FetchResult
    from lensmith.data.import_annotations import ImportResult
    from lensmith.data.label_export.export import LabelExport
    from lensmith.data.split import SplitResult
    from lensmith.data.verify import DataCheckResult


@documented(config.FetchSettings)
def fetch(
    name: str, folder: StrPath, *,
    max_train: int | None = None, max_test: int | None = None, seed: int = default(0),
) -> FetchResult:  # fmt: skip
    """Make an image folder of a known data set."""
    settings = config.FetchSettings.resolve(given(locals()))
    from lensmith.data.fetch import fetch as run

    return run(settings)


@documented(config.ImportSettings)
def import_annotations(
    source: StrPath, out: StrPath, *,
    format: str = default("auto"), classes: str | Sequence[str] | None = None, attribute: str | None = None,
    crops: StrPath | None = None, margin: float = default(0.0), overwrite: bool = default(False),
) -> ImportResult:  # fmt: skip
    """Write a manifest of the annotations of a labelling tool; pictures stay where they are."""
    settings = config.ImportSettings.resolve(given(locals()))
    from lensmith.data.import_annotations import import_annotations as run

    return run(settings)


@documented(config.CheckSettings)
def check(
    folder: StrPath, *,
    layout: Literal["auto", "parts", "classes"] = default("auto"), group: str = default("none"),
    exclude: StrPath | None = None, relabel: StrPath | None = None, near: bool = default(False),
    out: StrPath | None = None,
) -> DataCheckResult:  # fmt: skip
    """Check every file of an image folder or a CSV of path,label[,split]; a file with a problem raises no error."""
    settings = config.CheckSettings.resolve(given(locals()))
    from lensmith.data.verify import check as run

    page = (settings.out or Path("near-copies.html")) if settings.near else None
    return run(settings.folder, settings.layout, settings.exclude, settings.relabel, settings.group, page)


@documented(config.SplitSettings)
def split(
    folder: StrPath, *,
    ratio: str | Sequence[float] = default((5, 3, 2)), cv: int | None = None,
    layout: Literal["auto", "parts", "classes"] = default("auto"), group: str = default("none"), seed: int = default(0),
    exclude: StrPath | None = None, relabel: StrPath | None = None, out: StrPath | None = None,
    overwrite: bool = default(False),
) -> SplitResult:  # fmt: skip
    """Write a manifest that assigns every image to train, val or test."""
    settings = config.SplitSettings.resolve(given(locals()))
    from lensmith.data.split import split as run

    return run(settings)


@documented(config.LabelDoctorSettings)
def label_doctor(
    folder: StrPath, *,
    out: StrPath | None = None, layout: Literal["auto", "parts", "classes"] = default("auto"),
    group: str = default("none"), exclude: StrPath | None = None, relabel: StrPath | None = None,
    model: str = default("tf_efficientnet_lite0"), weights: StrPath | None = None, image_size: int | None = None,
    seed: int = default(0), overwrite: bool = default(False),
) -> LabelDoctorResult:  # fmt: skip
    """Examine the labels and pictures of a set, and write a page and lists; `doctor` checks this machine instead."""
    settings = config.LabelDoctorSettings.resolve(given(locals()))
    from lensmith.curation.diagnose import diagnose as run

    return run(settings)


@documented(config.LabelExportSettings)
def export_labels(
    data: StrPath, *,
    format: Literal["label-studio", "cvat", "coco", "imagenet"] = default("label-studio"),
    out: StrPath = default("labels"), predictions: StrPath | None = None,
    layout: Literal["auto", "parts", "classes"] = default("auto"),
) -> LabelExport:  # fmt: skip
    """Write labels for a labelling tool, with a bundle's answers as pre-annotations."""
    settings = located(config.LabelExportSettings.resolve(given(locals())), "predictions")
    from lensmith.workflows.label_export import export_labels as run

    return run(settings)


def next_labels(pictures: StrPath, run: StrPath, *, count: int = 100, out: StrPath = "next.csv") -> NextLabels:
    """Choose the unlabelled pictures whose labels would teach a model most, and write them as a work list.

    Args:
        pictures: Folder of pictures, or a CSV or text file that names them.
        run: Run folder or bundle of the model, or NAME@ALIAS.
        count: Number of pictures to choose.
        out: Work list to write, which `lensmith review` opens.
    """
    from lensmith.curation.next_labels import next_labels as choose

    return choose(Path(pictures), bundle_of(run), count, Path(out))


@documented(config.AgreementSettings)
def agreement(
    sources: StrPath | Sequence[StrPath], *,
    consensus: Literal["majority", "dawid-skene"] = default("majority"), out: StrPath | None = None,
    overwrite: bool = default(False), seed: int = default(0),
) -> AgreementResult:  # fmt: skip
    """Compare several annotators of the same images, and resolve their labels into one for each image."""
    if isinstance(sources, str | PathLike):
        sources = [sources]
    settings = config.AgreementSettings.resolve(given(locals()))
    from lensmith.data.agreement_files import measure_agreement

    return measure_agreement(settings)
