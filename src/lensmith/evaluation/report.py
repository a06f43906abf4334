"""The HTML report of an evaluation: one file without scripts or requests, with its pictures inside as data URIs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lensmith.bundle.format import EngineRecord
from lensmith.core.files import atomic_write
from lensmith.core.templates import render_page
from lensmith.evaluation import fold_chart, scatter
from lensmith.evaluation.confidence import TemperatureScaling
from lensmith.evaluation.cross_validation import CrossValidation
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import Calibration, Ints, Metrics
from lensmith.imaging.thumbnails import data_uri, thumbnail

MISTAKES = 24
CHANGED = 24
LEAST_CONFIDENT = 8
PAIRS = 12
NEAR = 24
HEAT_TABLE_CLASSES = 30
"""Up to so many classes the confusion matrix is a table with numbers; beyond, a picture."""
CLASSES_SHOWN = 40
HEAT_PX = 540


@dataclass(frozen=True)
class SelectionReport:
    """Results of an export that the report shows beside the evaluation. C classes, in label order.

    Attributes:
        engines: every candidate's record, those that could not be built too.
        scaling: temperature scaling and its effect; None if no temperature was fitted.
        changed: images whose class is not PyTorch's: row in the evaluation, name of PyTorch's class, and its margin,
            which is its probability less that of PyTorch's second class, 0..1.
        per_class_change_pp: C recalls less PyTorch's, in percentage points, below 0 is lost; None without images.
        images: number of images on which PyTorch and the engine were compared.
        max_drop_pp: accuracy that an engine was allowed to lose, in percentage points.
        answers: the engine's own answers, where the report's are those of other models; None: they are the report's.
        cross_validation: figures of those models; None: there are none.
    """

    engines: tuple[EngineRecord, ...]
    scaling: TemperatureScaling | None
    changed: tuple[tuple[int, str, float], ...]
    per_class_change_pp: tuple[float | None, ...]
    images: int
    max_drop_pp: float
    answers: Evaluation | None = None
    cross_validation: CrossValidation | None = None


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
    mistakes = evaluation.mistakes()
    return render_page(
        "lensmith.evaluation",
        "report.html.j2",
        e=evaluation,
        m=metrics,
        classes=_classes(evaluation),
        shown=CLASSES_SHOWN,
        rows=None if large else _heat_rows(metrics.confusion),
        heat_picture=_heat_picture(metrics.confusion) if large else None,
        pairs=_confused_pairs(metrics, labels) if len(labels) > 2 else [],
        bins=_bins(metrics.calibration),
        wrong=len(mistakes),
        mistakes=[_figure(evaluation, row) for row in mistakes[:MISTAKES].tolist()],
        near=_near(evaluation),
        least_sure=[_figure(evaluation, row) for row in _least_sure(evaluation).tolist()],
        selection=selection,
        **(_export_sections(evaluation, selection) if selection else {}),
    )


def _export_sections(evaluation: Evaluation, selection: SelectionReport) -> dict[str, Any]:
    """Template variables for the sections of an export."""
    evaluation = selection.answers or evaluation
    most_certain = sorted(selection.changed, key=lambda changed: -changed[2])[:CHANGED]
    changes = zip(evaluation.labels, selection.per_class_change_pp, evaluation.metrics.per_class, strict=True)
    return {
        "scatter": scatter.draw(selection.engines, selection.max_drop_pp),
        "plot": scatter,
        "cv": selection.cross_validation,
        "folds": selection.cross_validation and fold_chart.draw(selection.cross_validation),
        "changed": [
            {**_figure(evaluation, row), "reference": reference, "margin": margin}
            for row, reference, margin in most_certain
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
    shares = _row_shares(confusion)
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
    tallest, shares = max(calibration.counts), (calibration.confidence, calibration.accuracy)
    return [
        {
            "count": count,
            "correct": round(count * (accuracy or 0.0)),
            "confidence": confidence,
            "accuracy": accuracy,
            "height": count / tallest,
        }
        for count, confidence, accuracy in zip(calibration.counts, *shares, strict=True)
    ]


def _least_sure(evaluation: Evaluation) -> Ints:
    """int64 (K,): rows with a correct answer, the least confident first."""
    correct = np.flatnonzero(evaluation.probabilities.argmax(axis=1) == evaluation.truth)
    confidence = evaluation.probabilities[correct].max(axis=1)
    return correct[np.argsort(confidence, kind="stable")[:LEAST_CONFIDENT]]


def _near(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The most similar pairs of an evaluated image and a training image, with their pictures."""
    found = evaluation.near_training.pairs if evaluation.near_training else ()
    ranges = evaluation.value_ranges
    return [
        {
            "kind": "near copy",
            "across_parts": False,  # which all of them are
            "similarity": pair.similarity,
            "across_classes": pair.label != pair.training_label,
            "sides": [
                {"path": str(file), "label": label, "part": part, "picture": thumbnail(file, ranges)}
                for file, label, part in (
                    (pair.path, pair.label, "evaluated"),
                    (pair.training, pair.training_label, "training"),
                )
            ],
        }
        for pair in found[:NEAR]
    ]


def _figure(evaluation: Evaluation, row: int) -> dict[str, Any]:
    probabilities = evaluation.probabilities[row]
    return {
        "picture": thumbnail(evaluation.files[row], evaluation.value_ranges),
        "file": str(evaluation.files[row]),
        "true": evaluation.labels[evaluation.truth[row]],
        "predicted": evaluation.labels[probabilities.argmax()],
        "confidence": float(probabilities.max()),
    }


def _heat_picture(confusion: Ints) -> str:
    """The confusion matrix, int64 (C, C), as PNG: green correct, red wrong, stronger with the true class's share."""
    # One pixel a class, or a block of classes where the page has fewer pixels; a block shows its strongest cell.
    block = -(-len(confusion) // HEAT_PX)
    short = -len(confusion) % block
    shares = np.pad(_row_shares(confusion), (0, short))
    side = len(shares) // block
    strongest = shares.reshape(side, block, side, block).max(axis=(1, 3))
    # Colour through the alpha channel, so that one picture suits a light and a dark page. The root makes rare
    # mistakes visible.
    cells = np.empty((side, side, 4), dtype=np.uint8)
    cells[...] = (204, 78, 66, 0)
    cells[np.diag_indices(side)] = (46, 139, 112, 0)
    cells[..., 3] = np.sqrt(strongest) * 255
    return data_uri(Image.fromarray(cells), "PNG")


def _row_shares(confusion: Ints) -> npt.NDArray[np.float64]:
    """float64 (C, C): each cell as a share of its row, 0..1; a class without images has zeros."""
    shares: npt.NDArray[np.float64] = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return shares
