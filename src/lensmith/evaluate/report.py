"""An evaluation as one HTML file: no script, no request to anywhere, pictures inside, light, dark and on paper."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from lensmith.evaluate.evaluation import Evaluation
from lensmith.evaluate.metrics import Calibration, Ints
from lensmith.image import decode, read

MISTAKES = 24
LEAST_SURE = 8
PAIRS = 12
HEAT_TABLE_CLASSES = 30
"""Up to so many classes the confusion matrix is a table with numbers; beyond, a picture."""
HEAT_PICTURE_PX = 540
CLASSES_SHOWN = 40
THUMBNAIL_PX = 160


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report to `path`: a finished file or none."""
    write_whole(render(evaluation), path)


def write_whole(text: str, path: Path) -> None:
    """Write UTF-8 text to `path`; at every moment it is the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render(evaluation: Evaluation) -> str:
    """The report as HTML text."""
    metrics, labels = evaluation.metrics, evaluation.labels
    large = len(labels) > HEAT_TABLE_CLASSES
    environment = Environment(
        loader=PackageLoader("lensmith.evaluate"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters.update(share=_share, pixels=lambda value: f"{value:.1f}")
    mistakes = evaluation.mistakes()
    return environment.get_template("report.html.j2").render(
        e=evaluation,
        m=metrics,
        classes=_classes(evaluation),
        shown=CLASSES_SHOWN,
        rows=None if large else _heat_rows(metrics.confusion),
        heat_picture=_heat_picture(metrics.confusion) if large else None,
        pairs=_confused_pairs(metrics.confusion, labels) if len(labels) > 2 else [],
        bins=_bins(metrics.calibration),
        wrong=len(mistakes),
        mistakes=[_figure(evaluation, row) for row in mistakes[:MISTAKES]],
        least_sure=[_figure(evaluation, row) for row in _least_sure(evaluation)],
    )


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a class, the worst F1 first, classes without images last."""
    rows = [
        {"label": label, **vars(scores)}
        for label, scores in zip(evaluation.labels, evaluation.metrics.per_class, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["f1"] or 0.0))


def _row_shares(confusion: Ints) -> np.ndarray[Any, np.dtype[np.float64]]:
    shares: np.ndarray[Any, np.dtype[np.float64]] = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return shares


def _heat_rows(confusion: Ints) -> list[list[tuple[int, float]]]:
    """Count and share of its true class, cell by cell."""
    shares = _row_shares(confusion)
    return [
        [(int(count), float(share)) for count, share in zip(counts, row, strict=True)]
        for counts, row in zip(confusion, shares, strict=True)
    ]


def _heat_picture(confusion: Ints) -> str:
    """The matrix as a PNG data URI: green right, red wrong, stronger with the share of the true class."""
    # One pixel a class, or a block of classes where the page has fewer pixels; a block shows its strongest cell.
    block = -(-len(confusion) // HEAT_PICTURE_PX)
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
    return _data_uri(Image.fromarray(cells), "PNG")


def _confused_pairs(confusion: Ints, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The commonest mistakes: true class, predicted class, how many, and their share of the true class."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    shares = _row_shares(confusion)
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


def _figure(evaluation: Evaluation, row: np.int64) -> dict[str, Any]:
    probabilities = evaluation.probabilities[row]
    picture = decode(read(evaluation.files[row]), shortest_px=THUMBNAIL_PX)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return {
        "picture": _data_uri(picture, "JPEG"),
        "file": str(evaluation.files[row]),
        "true": evaluation.labels[evaluation.truth[row]],
        "predicted": evaluation.labels[probabilities.argmax()],
        "confidence": float(probabilities.max()),
    }


def _data_uri(picture: Image.Image, format: str) -> str:  # noqa: A002 - Pillow's word for it
    buffer = io.BytesIO()
    picture.save(buffer, format, quality=80)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
