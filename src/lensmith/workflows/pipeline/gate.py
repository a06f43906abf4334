"""The gate: a new model and the champion answer the same test images, and the new one has to keep its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensmith.bundle.format import Bundle
from lensmith.config.pipeline import GateSection
from lensmith.data.scan import ImageSet
from lensmith.evaluation.metrics import Ints
from lensmith.workflows.pipeline import intervals
from lensmith.workflows.pipeline.answers import Answers, answers_of, compared
from lensmith.workflows.pipeline.intervals import LEVEL, Interval
from lensmith.workflows.pipeline.latency import measure
from lensmith.workflows.pipeline.limits import Limit, worst_first

POINTS = "points"


@dataclass(frozen=True)
class Gate:
    """What the gate found.

    Attributes:
        bundle: of the new model.
        champion: what it was compared with, as flowers@3; None: nothing.
        images: that both answered.
        accuracy: of the new model on the test part.
        limits: each with what was measured.
        strict: whether a limit that is not shown to hold fails.
        notes: what the reader has to know of the comparison.
    """

    bundle: str
    champion: str | None
    images: int
    accuracy: Interval
    limits: tuple[Limit, ...]
    strict: bool
    notes: tuple[str, ...]

    @property
    def failed(self) -> tuple[Limit, ...]:
        """Limits for which it stays closed, the worst first."""
        return tuple(limit for limit in worst_first(self.limits, self.strict) if limit.fails(self.strict))

    @property
    def passed(self) -> bool:
        """Whether it opens."""
        return not self.failed

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": self.passed,
            "bundle": self.bundle,
            "champion": self.champion,
            "images": self.images,
            "accuracy": self.accuracy.as_dict(),
            "strict": self.strict,
            "failed": [f"{limit.name}: {limit.said()}" for limit in self.failed],
            "limits": [limit.as_dict(self.strict) for limit in worst_first(self.limits, self.strict)],
            "notes": list(self.notes),
        }


def judge(
    new: Bundle,
    champion: Bundle | None,
    called: str | None,
    images: ImageSet,
    settings: GateSection,
    mapping: Mapping[str, str | None],
) -> Gate:
    """Let both answer the test part, and hold what they answer against the limits.

    Args:
        new: bundle of the new model.
        champion: bundle of the champion; None: only absolute limits are judged.
        called: how people name it.
        images: a set with a test part that the new model has not learnt from.
        settings: the limits.
        mapping: the new model's label → the champion's, where they differ; None: the champion does not know it.

    Raises:
        SettingsError: labels that differ and are not mapped.
        DataError: no test image that can be read.
        BundleError: a bundle without an engine that runs here.
        GateError: a bundle that does not answer.
    """
    samples = images.part("test")
    mine, theirs = answers_of(new, images, samples), None
    notes = [f"Test images that cannot be read, and are left out: {mine.unreadable}."] if mine.unreadable else []
    limits = list(_absolute(mine, settings))
    if champion is not None:
        ours, theirs = compared(mine, champion, images, samples, mapping)
        limits += _against(ours, theirs, settings)
        notes += _compared_notes(new, champion, str(called), len(theirs.right), len(mine.right))
    elif not any(limit.name != "above_commonest" for limit in limits):
        notes.append("There is no champion to compare with, and no absolute limit is set.")
    if any(limit.name in ("min_recall", "recall_drop") for limit in limits):
        notes.append(
            "Intervals of single classes are wider than 95 %, so that all of them hold together with 95 % "
            "(Bonferroni): a class that is broken is not the unlucky one of many that were looked at."
        )
    limits += _latency(new, champion, mine.files, settings)
    limits += _size(new, champion, settings)
    accuracy = intervals.share(int(mine.right.sum()), len(mine.right))
    name = f"{new.manifest.name} {new.manifest.version}"
    images_judged = len(mine.right if theirs is None else theirs.right)
    return Gate(
        name, called if champion else None, images_judged, accuracy, tuple(limits), settings.strict, tuple(notes)
    )


def _absolute(mine: Answers, settings: GateSection) -> Iterator[Limit]:
    count = len(mine.right)
    accuracy = intervals.share(int(mine.right.sum()), count)
    if settings.above_commonest:
        commonest = float(np.bincount(mine.truth).max() / count)
        what = "accuracy (against always naming the commonest class)"
        yield Limit("above_commonest", what, accuracy, commonest, "least", shown=True)
    if settings.min_accuracy is not None:
        yield Limit("min_accuracy", "accuracy", accuracy, settings.min_accuracy, "least")
    floors = {
        label: floor
        for label in mine.labels
        if (floor := settings.min_recall.get(label, settings.min_recall.get("*"))) is not None
    }
    level = _together(len(floors))
    for label, floor in floors.items():
        of_class = mine.right[mine.truth == mine.labels.index(label)]
        recall = intervals.share(int(of_class.sum()), len(of_class), level) if len(of_class) else None
        yield Limit("min_recall", f"recall of {label}", recall, floor, "least")
    if settings.max_calibration_error is not None:
        error = intervals.calibration(mine.right, mine.confidence, settings.resamples, settings.seed)
        yield Limit("max_calibration_error", "calibration error", error, settings.max_calibration_error, "most")


def _against(mine: Answers, theirs: Answers, settings: GateSection) -> Iterator[Limit]:
    resamples, seed = settings.resamples, settings.seed
    if settings.accuracy_drop is not None:
        found = intervals.difference(mine.right, theirs.right, resamples, seed)
        yield Limit(
            "accuracy_drop", "accuracy, new − champion", _in_points(found), -settings.accuracy_drop, "least", POINTS
        )
    if settings.recall_drop is not None:
        level = _together(len(theirs.labels))
        for number, label in enumerate(theirs.labels):
            rows: Ints = np.flatnonzero(theirs.truth == number)
            drop = None
            if len(rows):
                drop = _in_points(intervals.difference(mine.right[rows], theirs.right[rows], resamples, seed, level))
            what = f"recall of {label}, new − champion"
            yield Limit("recall_drop", what, drop, -settings.recall_drop, "least", POINTS)
    if settings.calibration_rise is not None:
        old = theirs.right, theirs.confidence
        found = intervals.calibration(mine.right, mine.confidence, resamples, seed, old)
        what = "calibration error, new − champion"
        yield Limit("calibration_rise", what, _in_points(found), settings.calibration_rise, "most", POINTS)


def _latency(new: Bundle, champion: Bundle | None, files: tuple[Path, ...], settings: GateSection) -> Iterator[Limit]:
    compares = champion is not None and settings.latency_ratio is not None
    if not compares and settings.max_latency_ms is None:
        return
    times = measure([new.path, *([champion.path] if champion and compares else [])], files)
    if settings.max_latency_ms is not None:
        yield Limit("max_latency_ms", "latency", intervals.median(times[0]), settings.max_latency_ms, "most", "ms")
    if compares and settings.latency_ratio is not None:
        ratios = intervals.median(np.array(times[0]) / np.array(times[1]))
        yield Limit("latency_ratio", "latency, new ÷ champion", ratios, settings.latency_ratio, "most", "×")


def _size(new: Bundle, champion: Bundle | None, settings: GateSection) -> Iterator[Limit]:
    size = _bytes(new)
    if settings.max_size_mb is not None:
        yield Limit("max_size_mb", "size", Interval.exact(size / 1e6), settings.max_size_mb, "most", "MB")
    if champion is not None and settings.size_ratio is not None:
        ratio = Interval.exact(size / _bytes(champion))
        yield Limit("size_ratio", "size, new ÷ champion", ratio, settings.size_ratio, "most", "×")


def _bytes(bundle: Bundle) -> int:
    record = bundle.records()[0]
    return record.bytes or (bundle.path / str(record.graph)).stat().st_size


def _together(count: int) -> float:
    """Level of each of `count` intervals so that all of them hold together with LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, count)


def _in_points(found: Interval) -> Interval:
    return Interval(100 * found.value, 100 * found.low, 100 * found.high, found.level)


def _compared_notes(new: Bundle, champion: Bundle, called: str, both: int, all_images: int) -> Iterator[str]:
    mine, theirs = (each.manifest.dataset.get("fingerprint") for each in (new, champion))
    if mine != theirs:
        yield (
            f"{called} was trained on other data than the new model, and may have learnt from some of these test "
            "images; that makes it look better than it is, and the new model worse beside it."
        )
    if both < all_images:
        yield f"Both are compared on the {both:,} of {all_images:,} test images whose class the champion knows."
