"""An evaluation as one HTML file: no script, no request to anywhere, pictures inside, light, dark and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from lensmith.core.files import atomic_write
from lensmith.evaluation import pictures, scatter
from lensmith.evaluation.engine_choice import Choice
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.metrics import Calibration, Ints

MISTAKES = 24
CHANGED = 24
LEAST_SURE = 8
PAIRS = 12
HEAT_TABLE_CLASSES = 30
"""Up to so many classes the confusion matrix is a table with numbers; beyond, a picture."""
CLASSES_SHOWN = 40


def write_report(evaluation: Evaluation, path: Path, choice: Choice | None = None) -> None:
    """Write the report to `path`: a finished file or none.

    Args:
        evaluation: what it tells of.
        path: the HTML file.
        choice: adds sections on the engines, the temperature and the answers that changed.
    """
    atomic_write(path, render(evaluation, choice))


def render(evaluation: Evaluation, choice: Choice | None = None) -> str:
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
        heat_picture=pictures.heat(metrics.confusion) if large else None,
        pairs=_confused_pairs(metrics.confusion, labels) if len(labels) > 2 else [],
        bins=_bins(metrics.calibration),
        wrong=len(mistakes),
        mistakes=[_figure(evaluation, row) for row in mistakes[:MISTAKES].tolist()],
        least_sure=[_figure(evaluation, row) for row in _least_sure(evaluation).tolist()],
        choice=choice,
        **(_chosen(evaluation, choice) if choice else {}),
    )


def _chosen(evaluation: Evaluation, choice: Choice) -> dict[str, Any]:
    """What the sections of an export show."""
    gravest = sorted(choice.changed, key=lambda changed: -changed.margin)[:CHANGED]
    changes = zip(evaluation.labels, choice.per_class_change, evaluation.metrics.per_class, strict=True)
    return {
        "scatter": scatter.draw(choice.engines, choice.max_drop),
        "plot": scatter,
        "changed": [
            {
                **_figure(evaluation, changed.row),
                "reference": evaluation.labels[changed.reference],
                "margin": changed.margin,
            }
            for changed in gravest
        ],
        "class_changes": sorted(
            ({"label": label, "points": points, **vars(scores)} for label, points, scores in changes if points),
            key=lambda row: row["points"],
        ),
    }


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a class, the worst F1 first, classes without images last."""
    rows = [
        {"label": label, **vars(scores)}
        for label, scores in zip(evaluation.labels, evaluation.metrics.per_class, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["f1"] or 0.0))


def _heat_rows(confusion: Ints) -> list[list[tuple[int, float]]]:
    """Count and share of its true class, cell by cell."""
    shares = pictures.row_shares(confusion)
    return [
        [(int(count), float(share)) for count, share in zip(counts, row, strict=True)]
        for counts, row in zip(confusion, shares, strict=True)
    ]


def _confused_pairs(confusion: Ints, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The commonest mistakes: true class, predicted class, how many, and their share of the true class."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    shares = pictures.row_shares(confusion)
    return [
        {"true": labels[t], "predicted": labels[p], "count": int(wrong[t, p]), "share": float(shares[t, p])}
        for t, p in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[t, p]
    ]


def _bins(calibration: Calibration) -> list[dict[str, Any]]:
    """One bin of confidence each, for both diagrams: how many, how many of them right, and the shares."""
    tallest = max(calibration.counts)
    return [
        {
            "count": count,
            "right": round(count * (accuracy or 0.0)),
            "confidence": confidence,
            "accuracy": accuracy,
            "height": count / tallest,
        }
        for count, confidence, accuracy in zip(
            calibration.counts, calibration.confidence, calibration.accuracy, strict=True
        )
    ]


def _least_sure(evaluation: Evaluation) -> Ints:
    """Rows with a right answer, the least confident first."""
    right = np.flatnonzero(evaluation.probabilities.argmax(axis=1) == evaluation.truth)
    confidence = evaluation.probabilities[right].max(axis=1)
    return right[np.argsort(confidence, kind="stable")[:LEAST_SURE]]


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
