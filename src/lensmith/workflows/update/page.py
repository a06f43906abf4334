"""The page before/after: one file without scripts or requests, with its pictures inside as data URIs."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write
from lensmith.core.stats import evenly_spaced
from lensmith.core.templates import render_page
from lensmith.curation.label_summary import LabelSummary
from lensmith.data.image_set import PARTS, ImageSet, Sample
from lensmith.imaging.thumbnails import thumbnail_if_readable
from lensmith.imaging.value_range import ValueRange
from lensmith.workflows.pipeline.compared_answers import ComparedAnswers
from lensmith.workflows.pipeline.intervals import Interval
from lensmith.workflows.pipeline.limits import table_rows

PICTURES = 36
"""Most pictures in each section."""

CLASSES = 40
"""Classes in the table; further ones are folded away."""


@dataclass(frozen=True)
class UpdatePage:
    """What the page shows.

    Attributes:
        name: name of the model.
        champion: display name of the champion.
        successor: version of the new model's bundle.
        passed: whether the gate lets the new model pass.
        reason: why it does not; empty if it does.
        compared: answers of both models to the same held-out pictures.
        limits: the gate's limits as plain values.
        labels: the label doctor's summary, with paths relative to the working directory.
        notes: sentences on the comparison and the pictures.
        new: pictures that the champion does not know.
        images: the set, with old and new pictures.
        value_ranges: black and white of deep pictures, by kind of values.
    """

    name: str
    champion: str
    successor: str
    passed: bool
    reason: str
    compared: ComparedAnswers
    limits: Sequence[Mapping[str, Any]]
    labels: LabelSummary
    notes: Sequence[str]
    new: Sequence[Sample]
    images: ImageSet
    value_ranges: Mapping[str, ValueRange]


def write_page(page: UpdatePage, path: Path) -> None:
    """Write the page whole or not at all."""
    atomic_write(path, render(page))


def render(page: UpdatePage) -> str:
    """The page as HTML text."""
    compared = page.compared
    right, wrong = compared.became_right, compared.became_wrong
    both_wrong = int((~compared.new_correct & ~compared.old_correct).sum())
    classes = _classes(compared)
    return render_page(
        "lensmith.workflows.update",
        "before-after.html.j2",
        page=page,
        points=points,
        verdict=verdict(compared.difference),
        compared=len(compared.files),
        before=compared.accuracy(compared.old_correct),
        after=compared.accuracy(compared.new_correct),
        difference=compared.difference,
        counts={"right": len(right), "wrong": len(wrong), "both_wrong": both_wrong},
        right=[_figure(page, row) for row in right[:PICTURES].tolist()],
        wrong=[_figure(page, row) for row in wrong[:PICTURES].tolist()],
        new=_new_pictures(page),
        new_counts=_new_counts(page),
        classes=classes[:CLASSES],
        further_classes=classes[CLASSES:],
        limits=[
            (what, f"{measured} {unit}", interval, bound, verdict)
            for _, what, measured, interval, bound, unit, verdict in table_rows(page.limits)
        ],
    )


def verdict(difference: Interval) -> str:
    """What the paired interval of a difference, in percentage points, shows, in one sentence."""
    if difference.low > 0:
        return "The new model is better."
    if difference.high < 0:
        return "The new model is worse."
    return "No difference between the two is shown."


def points(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return f"{value:+.1f}".replace("-", "−")


def _classes(compared: ComparedAnswers) -> list[dict[str, Any]]:
    """Recall of each class by both models, the largest loss first."""
    rows = []
    for number, label in enumerate(compared.labels[:-1]):
        here = compared.truth == number
        if count := int(here.sum()):
            before, after = (float(correct[here].mean()) for correct in (compared.old_correct, compared.new_correct))
            change = 100 * (after - before)
            rows.append({"label": label, "images": count, "before": before, "after": after, "change": change})
    return sorted(rows, key=lambda row: (row["change"], row["label"]))


def _figure(page: UpdatePage, row: int) -> dict[str, Any]:
    compared = page.compared
    return {
        "picture": thumbnail_if_readable(Path(compared.files[row]), page.value_ranges),
        "file": compared.files[row],
        "true": compared.labels[compared.truth[row]],
        "before": compared.labels[compared.old[row]],
        "before_confidence": float(compared.old_confidence[row]),
        "after": compared.labels[compared.new[row]],
        "after_confidence": float(compared.new_confidence[row]),
    }


def _new_pictures(page: UpdatePage) -> list[dict[str, Any]]:
    """Some of the new pictures: those that the label doctor doubts, the others evenly over their order."""
    doubts: dict[str, str] = {each.path: each.kind for each in page.labels.new_quality}
    doubts |= {each.path: "looks like no class" for each in page.labels.new_outliers}
    doubts |= {each.path: f"looks like {each.suggested}" for each in page.labels.new_suspects}
    named = [(os.path.relpath(page.images.file(sample)), sample) for sample in page.new]
    doubted = [each for each in named if each[0] in doubts][:PICTURES]
    others = [each for each in named if each[0] not in doubts]
    return [
        {
            "picture": thumbnail_if_readable(page.images.file(sample), page.value_ranges),
            "file": name,
            "label": page.images.labels[sample.label],
            "part": sample.part,
            "doubt": doubts.get(name, ""),
        }
        for name, sample in (*doubted, *evenly_spaced(others, PICTURES - len(doubted)))
    ]


def _new_counts(page: UpdatePage) -> list[dict[str, Any]]:
    """Number of new pictures by class and part, and of all pictures of the class."""
    return [
        {"label": page.images.labels[label], "all": total, **parts}
        for label, total, parts in _counts(page.new, page.images.samples)
    ]


def _counts(new: Iterable[Sample], everything: Iterable[Sample]) -> list[tuple[int, int, dict[str, int]]]:
    by_class: dict[int, Counter[str]] = {}
    for sample in new:
        by_class.setdefault(sample.label, Counter())[str(sample.part)] += 1
    totals = Counter(sample.label for sample in everything)
    return [(label, totals[label], {part: by_class[label][part] for part in PARTS}) for label in sorted(by_class)]
