"""Bundles: export, measure again, inspect, evaluate, predict. A bundle is named by its path or as NAME@ALIAS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from lensmith import config
from lensmith.api.arguments import StrPath, default, documented, given, locate, located
from lensmith.core.machine import share_cores

if TYPE_CHECKING:
    from lensmith.evaluation.evaluation import Evaluation
    from lensmith.exporting.export import ExportResult
    from lensmith.inference.batch import Predicted
    from lensmith.inference.classifier import Classifier
    from lensmith.inference.inspection import Description, Difference, Verified
    from lensmith.inference.retune import Retuned


@documented(config.ExportSettings)
def export(
    run: StrPath | None = None, *,
    target: Literal["cpu", "gpu", "edge", "all"] = default("cpu"), max_accuracy_drop: float | None = None,
    images: int = default(1000), min_precision: float | None = None, formats: str | Sequence[str] = default(()),
    features: bool = default(False), licence: str | None = None, data_licence: str | None = None,
    out: StrPath | None = None, bundle_name: str | None = None, overwrite: bool = default(False),
    tolerance: float = default(0.001), min_agreement: float = default(0.999),
) -> ExportResult:  # fmt: skip
    """Turn a run into a bundle with the fastest engine whose loss of accuracy is within the limit."""
    settings = config.ExportSettings.resolve(given(locals()))
    share_cores()
    from lensmith.exporting.export import export as make

    return make(settings)


def retune(bundle: StrPath, *, max_accuracy_drop: float | None = None) -> Retuned:
    """Measure a bundle's engines on this machine, and select one of them again.

    Args:
        bundle: Bundle folder or zip; its bundle.json is replaced.
        max_accuracy_drop: Accuracy that an engine may lose against the run's figure, in percentage points; by default
            the limit that the bundle was exported with.
    """
    settings = config.ExportSettings.resolve({"retune": bundle, "max_accuracy_drop": max_accuracy_drop})
    from lensmith.inference.retune import retune as run

    return run(settings)


def describe(bundle: StrPath) -> Description:
    """The content of a bundle, bundle.json and file sizes; schema and hashes are verified."""
    from lensmith.inference.inspection import describe as run

    return replace(run(locate(bundle)), path=Path(bundle))


def verify(bundle: StrPath) -> Verified:
    """Verify a bundle's schema and hashes, and the answers of every engine that runs here; see `problem` of the result.

    Args:
        bundle: Bundle folder or zip, or NAME@ALIAS.
    """
    from lensmith.inference.inspection import verify as run

    return replace(run(locate(bundle)), path=Path(bundle))


def diff(a: StrPath, b: StrPath) -> Difference:
    """Compare two bundles, field by field of bundle.json."""
    from lensmith.inference.inspection import diff as run

    return replace(run(locate(a), locate(b)), a=Path(a), b=Path(b))


@documented(config.EvaluateSettings)
def evaluate(
    bundle: StrPath, data: StrPath, *,
    part: Literal["auto", "train", "val", "test", "all"] = default("auto"),
    layout: Literal["auto", "parts", "classes"] = default("auto"), exclude: StrPath | None = None,
    relabel: StrPath | None = None, engine: str | None = None, out: StrPath | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate a bundle on labelled images, with the engine that serves."""
    settings = located(config.EvaluateSettings.resolve(given(locals())), "bundle")
    from lensmith.evaluation.run import evaluate as run

    return run(settings)


@documented(config.PredictSettings)
def predict(
    bundle: StrPath, images: StrPath | Iterable[StrPath], *, stream: TextIO | None = None,
    top_k: int = default(1), format: Literal["csv", "jsonl", "parquet"] | None = None, out: StrPath | None = None,
    engine: str | None = None,
) -> Predicted:  # fmt: skip
    """Classify image files and folders.

    Args:
        images: One path, or several.
        stream: Text stream for the rows where `out` is not given; without both they are in the result.
    """
    settings = given(locals(), "images", "stream")
    paths = [str(image) for image in ([images] if isinstance(images, (str, PathLike)) else images)]
    from lensmith.inference.batch import predict as run

    return run(located(config.PredictSettings.resolve({**settings, "images": paths}), "bundle"), stream)


def load(bundle: StrPath, engine: str | None = None, threads: int = 1) -> Classifier:
    """Open and verify a bundle: `load(path).predict(paths)`.

    Args:
        bundle: Bundle folder or zip, or NAME@ALIAS.
        engine: One of the bundle's engines, as openvino or openvino-int8; the selected one by default.
        threads: Threads for one image; with 1 each core works on an image of its own.
    """
    from lensmith.inference.classifier import load as run

    return run(locate(bundle), engine, threads)
