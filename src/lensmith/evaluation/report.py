"""The HTML report of an evaluation: one file without scripts or requests, with its pictures inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from lensmith.bundle.format import EngineRecord
from lensmith.core.files import atomic_write
from lensmith.evaluation import pictures, scatter
from lensmith.evaluation.confidence import TemperatureScaling
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import Calibration, Ints, Metrics

MISTAKES = 24
CHANGED = 24
LEAST_CONFIDENT = 8
PAIRS = 12
HEAT_TABLE_CLASSES = 30
"""Up to so many classes the confusion matrix is a table with numbers; beyond, a picture."""
CLASSES_SHOWN = 40


@dataclass(frozen=True)
class ChangedAnswer:
    """An image that PyTorch assigns to another class than the evaluated engine.

    Attributes:
        row: index into the evaluation's files, truth and probabilities.
        reference: index of PyTorch's class.
        margin: PyTorch's probability of its class less that of the second, 0..1.
    """

    row: int
    reference: int
    margin: float


@dataclass(frozen=True)
class SelectionReport:
    """Results of an export that the report shows beside the evaluation. C classes, in label order.

    Attributes:
        engines: every candidate's record, those that could not be built too.
        scaling: temperature scaling and its effect; None if no temperature was fitted.
        changed: images whose class is not PyTorch's.
        per_class_change_pp: C recalls less PyTorch's, in percentage points, below 0 is lost; None without images.
        images: number of images on which PyTorch and the engine were compared.
        max_drop_pp: accuracy that an engine was allowed to lose, in percentage points.
    """

    engines: tuple[EngineRecord, ...]
    scaling: TemperatureScaling | None
    changed: tuple[ChangedAnswer, ...]
    per_class_change_pp: tuple[float | None, ...]
    images: int
    max_drop_pp: float | None = None


def write_report(evaluation: Evaluation, path: Path, selection: SelectionReport | None = None) -> None:
    """Write the report whole or not at all.

    Args:
        evaluation: answers and metrics to show.
        path: the HTML file.
        selection: results of an export; adds sections on engines, temperature scaling and changed answers.
    """
    atomic_write(path, render(evaluation, selection))


def render(evaluation: Evaluation, selection: SelectionReport | None = None) -> str:
    """The report as HTML text; arguments as `write_report`'s."""
    metrics, labels = evaluation.metrics, evaluation.labels
    large = len(labels) > HEAT_TABLE_CLASSES
    environment = Environment(
        loader=PackageLoader("lensmith.evaluation"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters.update(share=_share, number=_number, pixels=lambda value: f"{value:.1f}")
    mistakes = evaluation.mistakes()
    return environment.get_template("report.html.j2").render(
        e=evaluation,
        m=metrics,
        classes=_classes(evaluation),
        shown=CLASSES_SHOWN,
        rows=None if large else _heat_rows(metrics.confusion),
        heat_picture=pictures.confusion_heatmap(metrics.confusion) if large else None,
        pairs=_confused_pairs(metrics, labels) if len(labels) > 2 else [],
        bins=_bins(metrics.calibration),
        wrong=len(mistakes),
        mistakes=[_figure(evaluation, row) for row in mistakes[:MISTAKES].tolist()],
        least_sure=[_figure(evaluation, row) for row in _least_sure(evaluation).tolist()],
        selection=selection,
        **(_export_sections(evaluation, selection) if selection else {}),
    )


def _export_sections(evaluation: Evaluation, selection: SelectionReport) -> dict[str, Any]:
    """Template variables for the sections of an export."""
    most_certain = sorted(selection.changed, key=lambda changed: -changed.margin)[:CHANGED]
    changes = zip(evaluation.labels, selection.per_class_change_pp, evaluation.metrics.per_class, strict=True)
    return {
        "scatter": scatter.draw(selection.engines, selection.max_drop_pp),
        "plot": scatter,
        "changed": [
            {
                **_figure(evaluation, changed.row),
                "reference": evaluation.labels[changed.reference],
                "margin": changed.margin,
            }
            for changed in most_certain
        ],
        "class_changes": sorted(
            ({"label": label, "change_pp": change, **vars(scores)} for label, change, scores in changes if change),
            key=lambda row: row["change_pp"],
        ),
    }


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of the table of classes, the worst F1 first, classes without images last."""
    rows = [
        {"label": label, **vars(scores)}
        for label, scores in zip(evaluation.labels, evaluation.metrics.per_class, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["f1"] or 0.0))


def _heat_rows(confusion: Ints) -> list[list[tuple[int, float]]]:
    """Cells of the confusion matrix: count, and share of the true class, 0..1."""
    shares = pictures.row_shares(confusion)
    return [
        [(int(count), float(share)) for count, share in zip(counts, row, strict=True)]
        for counts, row in zip(confusion, shares, strict=True)
    ]


def _confused_pairs(metrics: Metrics, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The commonest mistakes: true class, predicted class, number, and share of the true class."""
    return [
        {"true": labels[t], "predicted": labels[p], "count": count, "share": count / metrics.per_class[t].support}
        for t, p, count in metrics.confusions(PAIRS)
    ]


def _bins(calibration: Calibration) -> list[dict[str, Any]]:
    """Bins of confidence for both diagrams: number of answers, number of correct ones, and the shares."""
    tallest = max(calibration.counts)
    return [
        {
            "count": count,
            "correct": round(count * (accuracy or 0.0)),
            "confidence": confidence,
            "accuracy": accuracy,
            "height": count / tallest,
        }
        for count, confidence, accuracy in zip(
            calibration.counts, calibration.confidence, calibration.accuracy, strict=True
        )
    ]


def _least_sure(evaluation: Evaluation) -> Ints:
    """int64 (K,): rows with a correct answer, the least confident first."""
    correct = np.flatnonzero(evaluation.probabilities.argmax(axis=1) == evaluation.truth)
    confidence = evaluation.probabilities[correct].max(axis=1)
    return correct[np.argsort(confidence, kind="stable")[:LEAST_CONFIDENT]]


def _figure(evaluation: Evaluation, row: int) -> dict[str, Any]:
    probabilities = evaluation.probabilities[row]
    return {
        "picture": pictures.thumbnail(evaluation.files[row]),
        "file": str(evaluation.files[row]),
        "true": evaluation.labels[evaluation.truth[row]],
        "predicted": evaluation.labels[probabilities.argmax()],
        "confidence": float(probabilities.max()),
    }


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
