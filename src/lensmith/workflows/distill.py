"""Knowledge distillation: a small network learns from a large one's answers, on the parts of the teacher's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from lensmith.config import TrainSettings
from lensmith.config.base import read_yaml
from lensmith.core.result import Result
from lensmith.data.corrections import from_files
from lensmith.data.split import prepare
from lensmith.errors import DataError, RunError, SettingsError
from lensmith.training.microbatch.distributed import World
from lensmith.training.models import backbone
from lensmith.training.result import RunResult
from lensmith.training.run_dir import diff
from lensmith.training.run_dir.run import Run
from lensmith.training.teacher import another_seed
from lensmith.workflows.train_and_export import AUTO, Trained, settings_for, train

INHERITED = ("split", "group", "seed", "resize", "layout", "exclude", "relabel")
"""Settings that the student inherits from the teacher's run unless they are given, as it inherits the images."""


@dataclass(frozen=True)
class ComparedModel(Result):
    """The teacher or the student, to be compared with the other.

    Attributes:
        run: the run folder.
        model: the backbone.
        accuracy: accuracy of the best epoch on the student's validation part, 0..1; None where it cannot be compared.
        params_millions: parameters with the head for these classes, in millions.
    """

    run: Path
    model: str
    accuracy: float | None
    params_millions: float


@dataclass(frozen=True)
class Distilled:
    """A student's run with its bundle, and its figures beside the teacher's."""

    trained: Trained
    teacher: ComparedModel
    student: ComparedModel

    @classmethod
    def of(cls, trained: Trained) -> Distilled:
        """The student beside the teacher that its settings name.

        Raises:
            RunError: the teacher's run is gone.
        """
        student = Run.open(trained.run)
        assert student.settings.teacher is not None
        teacher = Run.open(student.settings.teacher)
        comparable = _validation(teacher) == _validation(student)
        accuracy = RunResult.read(teacher).metrics["val_accuracy"] if comparable else None
        return cls(trained, _compared(teacher, accuracy), _compared(student, trained.result.metrics["val_accuracy"]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: those of `train`, and the teacher and the student."""
        return {**self.trained.as_dict(), "teacher": self.teacher.as_dict(), "student": self.student.as_dict()}


def distill(
    given: Mapping[str, Any], recipe: str | PathLike[str] | None = None, resume: str | PathLike[str] | None = None
) -> Distilled:
    """Train a student and export it.

    Images and parts are those of the teacher's run unless the settings name others. Arguments are as those of `train`.

    Raises:
        SettingsError: settings that cannot be used, or a teacher of other classes or parts.
        RunError: the teacher is no run, or has not finished an epoch; its images have changed; or the run to resume has
            no teacher.
    """
    if resume is not None and resume != AUTO:
        if Run.open(Path(resume)).settings.teacher is None:
            raise RunError(
                f"The run of a student was expected at {resume}.",
                "It has no teacher.",
                f"Resume it: lensmith train --resume {resume}",
            )
        return Distilled.of(train(given, recipe, resume))
    base_settings, given = _with_teacher(given, recipe)
    settings = settings_for(given, recipe, base_settings)
    assert settings.teacher is not None
    if settings.data is base_settings["data"]:
        teacher = Run.open(settings.teacher)
        World.join().on_rank_zero(lambda: _require_same_images(teacher, settings))
    return Distilled.of(train(given, recipe, resume, base_settings))


def _with_teacher(
    given: Mapping[str, Any], recipe: str | PathLike[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Base settings from the teacher's run, and the given ones with the teacher's path in full."""
    layers = TrainSettings.layers(given, read_yaml(Path(recipe)) if recipe is not None else {})
    missing = [role for role, name in (("teacher", "teacher"), ("student", "model")) if name not in layers]
    if missing:
        raise SettingsError(
            "Usable settings were expected for `lensmith distill`.",
            f"These arrived: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "Name both: lensmith distill RUN --student BACKBONE; `lensmith models --for edge` lists small ones.",
        )
    teacher = Run.open(Path(str(layers["teacher"])))
    inherited = {name: getattr(teacher.settings, name) for name in INHERITED}
    # In full, so that the run can be resumed from another folder.
    return {"data": teacher.source, **inherited}, {**given, "teacher": teacher.path.resolve()}


def _require_same_images(teacher: Run, settings: TrainSettings) -> None:
    """Refuse images that have changed since the teacher's run, or are in other parts.

    Raises:
        RunError: images, classes or parts differ.
    """
    expected = f"The images and parts that the teacher {teacher.path} was trained on were expected in {settings.data}."
    remedy = "Put them back, or name with --data which images the student learns from."
    try:
        correct = from_files(settings.exclude, settings.relabel)
        images = prepare(settings.data, settings.split, settings.seed, settings.layout, correct, settings.group)
    except DataError as error:
        raise RunError(expected, error.arrived, remedy) from error
    if different := diff.of_data(teacher, images):
        asked = any(getattr(settings, name) != getattr(teacher.settings, name) for name in ("seed", "split"))
        remedy = f"Leave --seed and --split out. {another_seed(teacher)}" if asked else remedy
        raise RunError(expected, f"They differ: {'; '.join(different)}.", remedy)


def _validation(run: Run) -> set[tuple[str, int, int]]:
    """Path, label and size of each validation image: in another folder a path may be that of another image."""
    return {(sample.path, sample.label, run.sizes[sample.path]) for sample in run.images.part("val")}


def _compared(run: Run, accuracy: float | None) -> ComparedModel:
    count = backbone.count_parameters(run.settings, len(run.images.labels))
    return ComparedModel(run.path, run.settings.model, accuracy, round(count / 1e6, 3))
