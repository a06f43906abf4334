"""Update a model with new pictures: a pipeline with the champion's settings, a page before/after, and one question.

OUT/NAME/splits.csv     the pictures with their parts
OUT/pipeline.yaml       the pipeline, with the champion's settings
OUT/pipeline/           its folder; finished stages are not run again
OUT/before-after.html   what became right, and what became wrong
OUT/replaced/           bundles that were replaced, where there is no registry
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from lensmith.bundle.format import Bundle
from lensmith.config import TrainSettings, UpdateSettings
from lensmith.core.output_names import require_folder_name
from lensmith.core.packages import TRAINING, require_packages
from lensmith.core.result import Result
from lensmith.curation.label_summary import LabelSummary, summarize
from lensmith.errors import BundleError, DataError, GateError, RegistryError
from lensmith.workflows.pipeline.compared_answers import COMPARED, ComparedAnswers
from lensmith.workflows.pipeline.intervals import Interval
from lensmith.workflows.pipeline.plan import PipelinePlan, make_plan
from lensmith.workflows.pipeline.run import PipelineResult, StageResult, run_plan
from lensmith.workflows.update.champion_pipeline import (
    new_classes,
    recorded_settings,
    training_settings,
    write_pipeline,
)
from lensmith.workflows.update.page import UpdatePage, write_page
from lensmith.workflows.update.parts import DividedPictures, divide_pictures
from lensmith.workflows.update.promote import file_name, promote

PAGE = "before-after.html"

Confirm = Callable[["UpdateResult"], bool]
"""Function that asks whether to promote."""


@dataclass
class UpdateResult(Result):
    """Result of `lensmith update`.

    Attributes:
        champion: display name of the champion that the new model is compared with.
        bundle: bundle of the new model.
        new_images: number of pictures that the champion does not know.
        labels: what the label doctor finds in them and in the pictures that the model learns from.
        computed_features: number of forward passes through frozen layers, for the label doctor as well; None where none
            are frozen.
        compared: number of held-out pictures that both models answered.
        accuracy: accuracy of the new model on them, 0..1.
        champion_accuracy: accuracy of the champion on them, 0..1.
        difference: accuracy of the new model less the champion's, in percentage points, with its paired interval.
        became_right: paths of the pictures that only the new model has right.
        became_wrong: paths of the pictures that only the champion has right.
        passed: whether the gate lets the new model pass.
        reason: why it does not; empty if it does.
        notes: sentences on the comparison and the pictures, such as how many were left out of it.
        page: path of the page before/after.
        promoted: what became of it in words; empty: it was not promoted.
        seconds: duration in seconds, up to the page.
    """

    computed: ClassVar[tuple[str, ...]] = ("is_promoted",)

    champion: str
    bundle: Path
    new_images: int
    labels: LabelSummary
    computed_features: int | None
    compared: int
    accuracy: Interval
    champion_accuracy: Interval
    difference: Interval
    became_right: tuple[str, ...]
    became_wrong: tuple[str, ...]
    passed: bool
    reason: str
    notes: tuple[str, ...]
    page: Path
    promoted: str = ""
    seconds: float = 0.0

    @property
    def problem(self) -> GateError | None:
        """The gate's refusal, which decides the exit code of the verb."""
        if self.passed:
            return None
        return GateError(
            f"A new model that keeps the limits of the gate was expected, beside {self.champion}.",
            f"{self.reason}",
            f"Nothing was promoted; see {self.page}.",
        )

    @property
    def is_promoted(self) -> bool:
        """Whether the new model serves requests now, or is tested in a canary release."""
        return bool(self.promoted)


def update(
    settings: UpdateSettings,
    confirm: Confirm = lambda result: False,
    on_progress: Callable[[StageResult], None] = lambda stage: None,
) -> UpdateResult:
    """Train the champion's successor on old and new pictures, compare the two, and promote it if that is confirmed.

    Args:
        settings: the verb's settings.
        confirm: function that asks; with `yes` it is not called.
        on_progress: callback for each stage of the pipeline.

    Raises:
        LensmithError: as `lensmith pipeline run`, but for a gate that refuses the model, which is in the result.
    """
    require_packages(*TRAINING)
    started = time.perf_counter()
    champion, name, where = _champion(settings)
    out = settings.out or Path("runs/updates") / file_name(settings.model or champion.manifest.name)
    require_folder_name(out, "the updates, with --out")
    title = file_name(champion.manifest.name)
    recipe = recorded_settings(champion)
    manifest, source = out / title / "splits.csv", out / "pipeline.yaml"
    divided = divide_pictures(settings.data, manifest, champion, recipe, settings.exclude, settings.relabel)
    training = training_settings(manifest, recipe)
    where["mapping"] = dict.fromkeys(new_classes(divided.images.labels, champion, settings.data))
    write_pipeline(source, title, manifest, champion, training, where)
    plan = make_plan(source, out / "pipeline")

    def once(stage: StageResult) -> None:
        """Report each stage but the check, which has been reported."""
        if stage.stage != "check":
            on_progress(stage)

    _require_sound(run_plan(plan, until="check", on_progress=on_progress), settings)
    labels = _examine_labels(divided, training, on_progress)
    ran = run_plan(plan, until="gate", on_progress=once)
    if ran.error is not None and not isinstance(ran.error, GateError):
        raise ran.error
    compared = ComparedAnswers.read(plan.stage_folder("gate") / COMPARED)
    result = _result(plan, ran, name, divided, labels, compared, out / PAGE)
    write_page(_page(result, plan, ran, compared, divided), result.page)
    on_progress(StageResult("page", "done", message=str(result.page)))
    result.seconds = time.perf_counter() - started
    if result.passed and (settings.yes or confirm(result)):
        result.promoted = promote(settings, plan, champion, out, on_progress)
    return result


def _require_sound(checked: PipelineResult, settings: UpdateSettings) -> None:
    """Raise the error of the check, with what the users of an update can do about it."""
    if isinstance(checked.error, DataError):
        remedy = (
            f"See `lensmith data check {settings.data}`; leave files out with --exclude, or mend labels with --relabel."
        )
        raise DataError(f"Data that can be trained on was expected in {settings.data}.", checked.error.arrived, remedy)
    if checked.error is not None:
        raise checked.error


def _examine_labels(
    divided: DividedPictures, training: TrainSettings, on_progress: Callable[[StageResult], None]
) -> LabelSummary:
    """The label doctor's summary of the new pictures and those that the model learns from."""
    on_progress(StageResult("labels", "running"))
    images, new = divided.images, set(divided.new)
    taken = [sample for sample in images.samples if sample.part == "train" or sample.path in new]
    named = {sample.path: os.path.relpath(images.file(sample)) for sample in taken}  # as people would type them
    samples = tuple(replace(sample, path=named[sample.path]) for sample in taken)
    found = summarize(replace(images, root=Path(), samples=samples), training, {named[path] for path in new})
    on_progress(StageResult("labels", "done", seconds=found.seconds, message=found.lines[0]))
    return found


def _champion(settings: UpdateSettings) -> tuple[Bundle, str, dict[str, Any]]:
    """The champion's bundle, its display name, and the sections of the pipeline's file that say so.

    Raises:
        RegistryError: the model has no champion.
        BundleError: no bundle, or one in a file, which is not replaced.
    """
    if settings.bundle is not None:
        if settings.bundle.is_file():
            raise BundleError(
                f"The folder of a bundle was expected at {settings.bundle}, so that it can be replaced.",
                "A file is there.",
                "Unpack it, or register it with `lensmith registry push` and give --model.",
            )
        path = settings.bundle.resolve()
        champion = Bundle.load(path)
        return champion, champion.manifest.version, {
            "gate": {"champion": str(path)}, "register": False, "rollout": False,
        }  # fmt: skip
    from lensmith.registry.pull import locate

    assert settings.model is not None
    name = f"{settings.model}@champion"
    try:
        champion = Bundle.load(locate(name, settings.tracking_uri))
    except RegistryError as error:
        raise RegistryError(
            f"A champion of {settings.model} was expected in the registry.",
            error.arrived,
            f"Register the bundle in use: lensmith registry push BUNDLE --name {settings.model} --alias champion",
        ) from error
    register = {"model": settings.model, "tracking_uri": settings.tracking_uri}
    register = {key: value for key, value in register.items() if value is not None}
    return champion, name, {"register": register, "rollout": {} if _has_traffic(settings) else False}


def _has_traffic(settings: UpdateSettings) -> bool:
    """Whether to begin a canary release: services have reported requests of an earlier one, or the user wants it."""
    if settings.canary is not None:
        return settings.canary
    from lensmith.rollout.status import status

    assert settings.model is not None
    return any(replica.champion for replica in status(settings.model, settings.tracking_uri).replicas)


def _result(
    plan: PipelinePlan,
    ran: PipelineResult,
    name: str,
    divided: DividedPictures,
    labels: LabelSummary,
    compared: ComparedAnswers,
    page: Path,
) -> UpdateResult:
    gate = next(stage for stage in ran.stages if stage.stage == "gate")
    return UpdateResult(
        champion=name,
        bundle=plan.bundle,
        new_images=len(divided.new),
        labels=labels,
        computed_features=_computed_features(plan, labels),
        compared=len(compared.files),
        accuracy=compared.accuracy(compared.new_correct),
        champion_accuracy=compared.accuracy(compared.old_correct),
        difference=compared.difference,
        became_right=tuple(compared.files[row] for row in compared.became_right),
        became_wrong=tuple(compared.files[row] for row in compared.became_wrong),
        passed=ran.error is None,
        reason="" if ran.error is None else ran.error.arrived,
        notes=(*divided.split.warnings, *gate.values.get("notes", ())),
        page=page,
    )


def _computed_features(plan: PipelinePlan, labels: LabelSummary) -> int | None:
    from lensmith.training.run_dir.run import Run

    events = Run.open(plan.run_folder).read_events("features")
    return sum(event.get("computed_rows", 0) for event in events) + labels.computed_features if events else None


def _page(
    result: UpdateResult, plan: PipelinePlan, ran: PipelineResult, compared: ComparedAnswers, divided: DividedPictures
) -> UpdatePage:
    gate = next(stage for stage in ran.stages if stage.stage == "gate")
    manifest, new = Bundle.load(plan.bundle).manifest, set(divided.new)
    return UpdatePage(
        name=plan.file.model if plan.file.register_ else plan.file.name,
        champion=result.champion,
        successor=manifest.version,
        passed=result.passed,
        reason=result.reason,
        compared=compared,
        limits=tuple(gate.values.get("limits", ())),
        notes=result.notes,
        labels=result.labels,
        new=tuple(sample for sample in divided.images.samples if sample.path in new),
        images=divided.images,
        value_ranges=manifest.preprocessing.value_ranges,
    )
