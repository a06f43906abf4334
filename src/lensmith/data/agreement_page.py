"""The page of `lensmith data agreement`: one HTML file without scripts or requests, with its pictures inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lensmith.core.labels import canonical_label
from lensmith.core.progress import track
from lensmith.core.templates import render_page
from lensmith.data.agreement import RELIABLE, TENTATIVE
from lensmith.data.annotators import AgreementResult
from lensmith.data.consensus import Consensus
from lensmith.imaging.thumbnails import thumbnail_if_readable

CONTESTED_SHOWN = 60
NARROW_SHOWN = 24
ROWS_SHOWN = 30
MATRIX_CLASSES = 30
"""Up to so many classes the page has the confusion matrix as a table."""
SCALE_PX = 600


def render(
    result: AgreementResult, root: Path, agreed: Consensus, given: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    """The page as HTML text.

    Args:
        result: figures of the comparison.
        root: folder that the images' paths are relative to.
        agreed: consensus of the annotators.
        given: path → annotator and class of each of its labels.
    """
    contested = sorted((each.path for each in result.contested), key=lambda path: (-_division(given[path]), path))
    narrow = _narrow(agreed, given)
    shown = track([*contested[:CONTESTED_SHOWN], *narrow[:NARROW_SHOWN]], "drawing pictures")
    figures = {path: _figure(root, path, given[path]) for path in shown}
    won = {row.path: canonical_label(row.label) for row in agreed.annotations}
    return render_page(
        "lensmith.data",
        "agreement.html.j2",
        r=result,
        contested=[figures[path] for path in contested[:CONTESTED_SHOWN]],
        narrow=[{**figures[path], "label": won[path]} for path in narrow[:NARROW_SHOWN]],
        narrow_count=len(narrow),
        rows=_heat_rows(result),
        shown=ROWS_SHOWN,
        thresholds=(TENTATIVE, RELIABLE),
        scale=lambda value: f"{20 + SCALE_PX * max(0.0, min(1.0, value)):.1f}",
    )


def _division(given: Sequence[tuple[str, str]]) -> float:
    """Share of an image's labels that are of another class than the commonest, 0..1."""
    counts = Counter(label for _, label in given)
    return 1 - max(counts.values()) / counts.total()


def _narrow(agreed: Consensus, given: Mapping[str, Sequence[tuple[str, str]]]) -> list[str]:
    """Images with a consensus that somebody does not share, the most divided first."""
    divided = {row.path: _division(given[row.path]) for row in agreed.annotations if len(given[row.path]) > 1}
    return sorted((path for path, share in divided.items() if share > 0), key=lambda path: (-divided[path], path))


def _figure(root: Path, path: str, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """An image's thumbnail, None where it cannot be read, its path, and who named which class."""
    of_class: dict[str, list[str]] = {}
    for annotator, label in given:
        of_class.setdefault(label, []).append(annotator)
    votes = sorted(of_class.items(), key=lambda item: (-len(item[1]), item[0]))
    return {"picture": thumbnail_if_readable(root / path), "path": path, "votes": votes}


def _heat_rows(result: AgreementResult) -> list[list[tuple[int, float]]] | None:
    """Cells of the confusion matrix: count, and share of the labels of the row's class, 0..1; None for many classes."""
    if result.confusion is None or len(result.classes) > MATRIX_CLASSES:
        return None
    return [[(count, count / max(1, sum(row))) for count in row] for row in result.confusion]
