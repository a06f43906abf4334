"""A small network trained on what a large one answers: `train` on the parts of the teacher's run; both side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from lensmith.config import TrainSettings
from lensmith.config.base import read_yaml
from lensmith.data.split import prepare
from lensmith.errors import DataError, RunError, SettingsError
from lensmith.training.microbatch.distributed import World
from lensmith.training.models import backbone
from lensmith.training.result import RunResult
from lensmith.training.run_dir import diff
from lensmith.training.run_dir.run import Run
from lensmith.training.teacher import another_seed
from lensmith.workflows.train_and_export import AUTO, Trained, settings_for, train

INHERITED = ("split", "seed", "resize")
"""Settings of the teacher's run that are the student's unless said otherwise, as is where its images lie."""


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        run: its folder.
        model: its backbone.
        accuracy: of its best epoch on the validation part; None where that is not the student's, or empty.
        params_millions: parameters with the head for these classes, in millions.
    """

    run: Path
    model: str
    accuracy: float | None
    params_millions: float


@dataclass(frozen=True)
class Distilled:
    """A student beside its teacher.

    Attributes:
        trained: the student's run with its bundle.
        teacher: what it learnt from.
        student: what it came to.
    """

    trained: Trained
    teacher: Side
    student: Side

    @classmethod
    def of(cls, trained: Trained) -> Distilled:
        """With the teacher that stands in the student's settings.

        Raises:
            RunError: the teacher's run is gone.
        """
        student = Run.open(trained.run)
        assert student.settings.teacher is not None
        teacher = Run.open(student.settings.teacher)
        comparable = _validation(teacher) == _validation(student)
        accuracy = RunResult.read(teacher).metrics["val_accuracy"] if comparable else None
        return cls(trained, _side(teacher, accuracy), _side(student, trained.result.metrics["val_accuracy"]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: all that `train` says, and the two."""
        return {**self.trained.as_dict(), "teacher": asdict(self.teacher), "student": asdict(self.student)}


def distill(
    given: Mapping[str, Any], recipe: str | PathLike[str] | None = None, resume: str | PathLike[str] | None = None
) -> Distilled:
    """Train a student and export it; arguments as those of `training.train`.

    What is not said of the data is as in the teacher's run: the images, and the part that each is in.

    Raises:
        SettingsError: settings that cannot be used, or a teacher of other classes or parts.
        RunError: the teacher is no run, or has no epoch behind it; its images have changed; or the run to go on with is
            no student's.
    """
    if resume is not None and resume != AUTO:
        if Run.open(Path(resume)).settings.teacher is None:
            raise RunError(
                f"The run of a student was expected at {resume}.",
                "It has no teacher.",
                f"Go on with it: lensmith train --resume {resume}",
            )
        return Distilled.of(train(given, recipe, resume))
    base_settings, said = _settled(given, recipe)
    settings = settings_for(said, recipe, base_settings)
    assert settings.teacher is not None
    if settings.data is base_settings["data"]:
        teacher = Run.open(settings.teacher)
        World.join().on_rank_zero(lambda: _require_same_images(teacher, settings))
    return Distilled.of(train(said, recipe, resume, base_settings))


def _settled(given: Mapping[str, Any], recipe: str | PathLike[str] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What comes from the teacher's run, and what was said, with the teacher's path in full."""
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
    # In full, so that the run can be gone on with from another folder.
    return {"data": teacher.source, **inherited}, {**given, "teacher": teacher.path.resolve()}


def _require_same_images(teacher: Run, settings: TrainSettings) -> None:
    """Refuse images that have changed since, or come in other parts.

    Raises:
        RunError: they do.
    """
    expected = f"The images and parts that the teacher {teacher.path} was trained on were expected in {settings.data}."
    remedy = "Put them back, or say with --data which images the student learns from."
    try:
        images = prepare(settings.data, settings.split, settings.seed)
    except DataError as error:
        raise RunError(expected, error.arrived, remedy) from error
    if different := diff.of_data(teacher, images):
        asked = any(getattr(settings, name) != getattr(teacher.settings, name) for name in ("seed", "split"))
        remedy = f"Leave --seed and --split out. {another_seed(teacher)}" if asked else remedy
        raise RunError(expected, f"They differ: {'; '.join(different)}.", remedy)


def _validation(run: Run) -> set[tuple[str, int]]:
    return {(sample.path, sample.label) for sample in run.images.part("val")}


def _side(run: Run, accuracy: float | None) -> Side:
    count = backbone.count_parameters(run.settings, len(run.images.labels))
    return Side(run.path, run.settings.model, accuracy, round(count / 1e6, 3))
