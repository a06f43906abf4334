"""The gate: a new model and the champion predict the same test images, and the new model must keep its limits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lensmith.bundle.format import Bundle
from lensmith.bundle.image_hashes import Use
from lensmith.config.pipeline import GateSection
from lensmith.core.result import Result
from lensmith.data.image_set import ImageSet
from lensmith.data.part_names import Part
from lensmith.evaluation.held_out import HeldOut, held_out
from lensmith.workflows.pipeline import intervals
from lensmith.workflows.pipeline.compared_answers import ComparedAnswers
from lensmith.workflows.pipeline.intervals import LEVEL, Interval
from lensmith.workflows.pipeline.latency import measure_latency
from lensmith.workflows.pipeline.limits import COLUMNS, LimitCheck, table_rows, worst_first
from lensmith.workflows.pipeline.predictions import ModelPredictions, pair_predictions, predict_test_images

PERCENTAGE_POINTS = "points"


@dataclass(frozen=True)
class GateResult(Result):
    """The gate's decision with all limits.

    Attributes:
        bundle: name and version of the new model's bundle.
        champion: display name of the champion, as flowers@3; None if there was no comparison.
        images: number of images that the new model, and the champion if any, predicted.
        accuracy: accuracy of the new model on the images that it does not know, 0..1.
        limits: all limits with their measurements, the worst first.
        strict: whether a limit that is not shown to hold fails.
        notes: caveats of the comparison, a sentence each.
        part: part of the data that the images are from: test, or val where there is no test part.
        held_out: number of images of the part, and of those that the new model knows.
    """

    computed: ClassVar[tuple[str, ...]] = ("passed",)

    bundle: str
    champion: str | None
    images: int
    accuracy: Interval
    limits: tuple[LimitCheck, ...]
    strict: bool
    notes: tuple[str, ...]
    part: str
    held_out: HeldOut

    @property
    def failed(self) -> tuple[LimitCheck, ...]:
        """Limits that close the gate, the worst first."""
        return tuple(check for check in self.limits if check.fails)

    @property
    def passed(self) -> bool:
        """Whether no limit fails."""
        return not self.failed

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**super().as_dict(), "failed": [str(check) for check in self.failed]}

    def markdown(self) -> str:
        """The limits as a Markdown table under a title, with the notes."""
        against = f"against {self.champion}" if self.champion else "without a champion"
        verdict = "passed" if self.passed else "FAILED"
        rows = [COLUMNS, ("---",) * len(COLUMNS), *table_rows([check.as_dict() for check in self.limits])]
        lines = ["| " + " | ".join(cell.replace("|", "&#124;") for cell in row) + " |" for row in rows]
        title = f"# {self.bundle} {against}, {self.images:,} {self.part} images: {verdict}"
        return "\n".join([title, "", *lines, *(f"\n{note}" for note in self.notes)]) + "\n"


def evaluate_gate(
    new: Bundle,
    champion: Bundle | None,
    champion_name: str | None,
    images: ImageSet,
    settings: GateSection,
    mapping: Mapping[str, str | None],
) -> tuple[GateResult, ComparedAnswers | None]:
    """Evaluate both models on the test images that neither knows, and check the limits.

    Where there is no test part it is the validation part, without the images that one of them learnt from.

    Args:
        new: bundle of the new model.
        champion: bundle of the champion; without one only absolute limits are checked.
        champion_name: display name of the champion, as flowers@3.
        images: image set with a test or validation part.
        settings: the gate's limits.
        mapping: the new model's label → the champion's, where they differ; None for a class new to the champion.

    Returns:
        The decision, and both models' answers to the same images; None without a champion.

    Raises:
        SettingsError: labels that differ and are not mapped.
        DataError: no image that can be read, or none that the models do not know.
        BundleError: a bundle without an engine that runs here.
        GateError: a bundle that does not answer.
    """
    part: Part = "test" if "test" in images.parts else "val"
    included: tuple[Use, ...] = ("val",) if part == "val" else ()
    remedy = "Add images that neither model has seen, or compare with none: gate: {champion: none}."
    samples, counts = held_out(new, images, images.part(part), included, name="the new model", remedy=remedy)
    mine, old = predict_test_images(new, images, samples), None
    accuracy = intervals.share(int(mine.correct.sum()), len(mine.correct))
    notes = [f"{counts.headline(len(mine.files), part).capitalize()}.", *counts.notes()]
    notes += [f"Test images that cannot be read, and are left out: {mine.unreadable}."] if mine.unreadable else []
    limits, compared = list(_absolute_limits(mine, accuracy, settings)), None
    if champion is not None:
        unknown, found = held_out(champion, images, samples, included, name=str(champion_name), remedy=remedy)
        ours, old = pair_predictions(mine, champion, images, unknown, mapping)
        limits += _limits_against(ours, old, settings)
        compared = ComparedAnswers.of(ours, old)
        notes += _comparison_notes(found, str(champion_name), len(old.files), len(mine.files))
    elif not any(check.limit != "above_commonest" for check in limits):
        notes.append("There is no champion to compare with, and no absolute limit is set.")
    if any(check.limit in ("min_recall", "recall_drop") for check in limits):
        notes.append(
            "Intervals of single classes are wider than 95 %, so that all of them together hold with 95 % "
            "(Bonferroni): with many classes one would otherwise look broken by chance."
        )
    limits += _latency_limits(new, champion, mine.files, settings)
    limits += _size_limits(new, champion, settings)
    result = GateResult(
        bundle=f"{new.manifest.name} {new.manifest.version}",
        champion=champion_name if champion else None,
        images=len((old or mine).files),
        accuracy=accuracy,
        limits=worst_first(limits),
        strict=settings.strict,
        notes=tuple(notes),
        part=part,
        held_out=counts,
    )
    return result, compared


def _absolute_limits(mine: ModelPredictions, accuracy: Interval, settings: GateSection) -> Iterator[LimitCheck]:
    strict = settings.strict
    if settings.above_commonest:
        commonest = float(np.bincount(mine.truth).max() / len(mine.truth))
        what = "accuracy (against always naming the commonest class)"
        yield LimitCheck("above_commonest", what, accuracy, commonest, "least", must_hold=True)
    if settings.min_accuracy is not None:
        yield LimitCheck("min_accuracy", "accuracy", accuracy, settings.min_accuracy, "least", must_hold=strict)
    floors = {
        label: floor
        for label in mine.labels
        if (floor := settings.min_recall.get(label, settings.min_recall.get("*"))) is not None
    }
    level = _bonferroni_level(len(floors))
    for label, floor in floors.items():
        of_class = mine.correct[mine.truth == mine.labels.index(label)]
        recall = intervals.share(int(of_class.sum()), len(of_class), level) if len(of_class) else None
        yield LimitCheck("min_recall", f"recall of {label}", recall, floor, "least", must_hold=strict)
    if (most := settings.max_calibration_error) is not None:
        error = intervals.calibration_error(mine.correct, mine.confidence, settings.resamples, settings.seed)
        yield LimitCheck("max_calibration_error", "calibration error", error, most, "most", must_hold=strict)


def _limits_against(mine: ModelPredictions, old: ModelPredictions, settings: GateSection) -> Iterator[LimitCheck]:
    resamples, seed = settings.resamples, settings.seed

    def difference(what: str, found: Interval | None, name: str, bound: float, side: Any) -> LimitCheck:
        measured = found and found.in_percentage_points()
        return LimitCheck(name, f"{what}, new − champion", measured, bound, side, PERCENTAGE_POINTS, settings.strict)

    if settings.accuracy_drop is not None:
        found = intervals.accuracy_difference(mine.correct, old.correct, resamples, seed)
        yield difference("accuracy", found, "accuracy_drop", -settings.accuracy_drop, "least")
    if settings.recall_drop is not None:
        level = _bonferroni_level(len(old.labels))
        for number, label in enumerate(old.labels):
            rows = np.flatnonzero(old.truth == number)
            recall = None
            if len(rows):
                recall = intervals.accuracy_difference(mine.correct[rows], old.correct[rows], resamples, seed, level)
            yield difference(f"recall of {label}", recall, "recall_drop", -settings.recall_drop, "least")
    if settings.calibration_rise is not None:
        both = (old.correct, old.confidence)
        found = intervals.calibration_error(mine.correct, mine.confidence, resamples, seed, both)
        yield difference("calibration error", found, "calibration_rise", settings.calibration_rise, "most")


def _latency_limits(
    new: Bundle, champion: Bundle | None, files: tuple[Path, ...], settings: GateSection
) -> Iterator[LimitCheck]:
    strict, ratio, most_ms = settings.strict, settings.latency_ratio, settings.max_latency_ms
    rivals = [champion.path] if champion is not None and ratio is not None else []
    if not rivals and most_ms is None:
        return
    times = measure_latency([new.path, *rivals], files)
    if most_ms is not None:
        yield LimitCheck("max_latency_ms", "latency", intervals.median(times[0]), most_ms, "most", "ms", strict)
    if rivals and ratio is not None:
        ratios = intervals.median(np.array(times[0]) / np.array(times[1]))
        yield LimitCheck("latency_ratio", "latency, new ÷ champion", ratios, ratio, "most", "×", strict)


def _size_limits(new: Bundle, champion: Bundle | None, settings: GateSection) -> Iterator[LimitCheck]:
    # Sizes are exact, so their verdict is never open.
    size = _engine_bytes(new)
    if settings.max_size_mb is not None:
        yield LimitCheck("max_size_mb", "size", Interval.exact(size / 1e6), settings.max_size_mb, "most", "MB")
    if champion is not None and settings.size_ratio is not None:
        ratio = Interval.exact(size / _engine_bytes(champion))
        yield LimitCheck("size_ratio", "size, new ÷ champion", ratio, settings.size_ratio, "most", "×")


def _engine_bytes(bundle: Bundle) -> int:
    record = bundle.records()[0]
    return record.bytes or (bundle.path / str(record.graph)).stat().st_size


def _bonferroni_level(count: int) -> float:
    """Confidence level of each of `count` intervals so that all of them together hold with LEVEL."""
    return 1 - (1 - LEVEL) / max(1, count)


def _comparison_notes(found: HeldOut, name: str, both: int, all_images: int) -> Iterator[str]:
    if not found.known or not found.complete:
        yield (
            f"The bundle of {name} does not know all images that it learnt from: some of these may be among them. That "
            "makes it look better than it is, and the new model worse beside it."
        )
    if found.left_out:
        yield f"Left out of the comparison: {found.left_out:,} of {found.of:,} images, which {name} knows."
    if both < all_images - found.left_out:
        yield (f"Both are compared on the {both:,} of {all_images:,} images whose class the champion knows.")
