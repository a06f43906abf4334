"""A student learns on the very parts of its teacher's run, and is shown beside it."""

import itertools
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import command_line
from lensmith.config import TrainSettings
from lensmith.errors import RunError, SettingsError
from lensmith.training.learner import Learner
from lensmith.training.result import RunResult
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer
from lensmith.workflows import distill

FLAGS = ["--no-pretrained", "--image-size", "32", "--loader-workers", "0", "--batch-size", "4", "--epochs", "2"]
FLAGS += ["--head-epochs", "1", "--precision", "fp32"]


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def parts(path: Path) -> set[tuple[str, str | None]]:
    return {(sample.path, sample.part) for sample in Run.open(path).images.samples}


@pytest.fixture
def teacher(quick: dict[str, Any], colours: Path, tmp_path: Path) -> Path:
    """A run whose split and seed are not the default ones."""
    settings = {"data": colours, "out": tmp_path / "teacher", "epochs": 2, "seed": 3, "split": (4, 3, 1)}
    return Trainer().start(TrainSettings.model_validate({**quick, **settings, "resize": "squash"})).run.path


@pytest.mark.slow
def test_from_a_teacher_to_a_bundle_that_stands_beside_it(
    run: command_line.Run, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSMITH_CONFIG", "lensmith.yaml")
    Path("lensmith.yaml").write_text("train: {data: elsewhere, seed: 9}\n")  # the teacher's go over it
    line = ["distill", "teacher", "--student", "test_byobnet", *FLAGS, "--feature-weight", 0.2, "--out", "student"]
    plain, steps = Learner.training_step, itertools.count()

    def stop_once(*given: Any) -> Any:
        if next(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given)

    monkeypatch.setattr(Learner, "training_step", stop_once)
    code, printed, _ = run(*line, "--resume", "auto", "--json")
    assert (code, json.loads(printed)["error"]) == (75, "RunInterruptedError")

    code, printed, _ = run("distill", "--resume", "student", "--json")
    result = json.loads(printed)
    assert (code, result["steps"], result["already"]) == (0, 6, False)
    assert parts(Path("student")) == parts(teacher)
    assert Path(result["bundle"], "bundle.json").is_file()
    settings = Run.open(Path("student")).settings
    assert (settings.seed, settings.resize, settings.feature_weight) == (3, "squash", 0.2)
    for role, model in (("teacher", "test_resnet"), ("student", "test_byobnet")):
        told, itself = result[role], Run.open(Path(role))
        assert told["model"] == model
        assert Path(told["run"]).resolve() == itself.path.resolve()
        assert told["accuracy"] == RunResult.read(itself).metrics["val_accuracy"]
        assert 0.1 < told["params_millions"] < 1

    code, printed, _ = run(*line, "--resume", "auto")
    assert code == 0
    assert "is finished and exported" in printed
    for role in ("teacher", "student"):
        assert any(row.startswith(role) and "test_" in row for row in printed.splitlines())

    code, _, said = run("distill", "--resume", "teacher")
    assert code == 2
    assert "lensmith train --resume teacher" in said


def test_what_is_said_goes_over_what_the_teacher_s_run_says(
    trained: Path, shared_colours: Path, reaching_trainer: Any
) -> None:
    Path("recipe.yaml").write_text("model: test_vit\nresize: letterbox\npreset: finetune-head\n")
    settings = reaching_trainer(
        lambda: distill.distill({"teacher": trained, "model": None, "epochs": 7}, Path("recipe.yaml"))
    )
    assert (settings.model, settings.resize, settings.epochs) == ("test_vit", "letterbox", 7)
    assert (settings.data, settings.augment) == (shared_colours.resolve(), "flip")
    plain = reaching_trainer(
        lambda: distill.distill({"teacher": trained, "model": "test_vit", "preset": "finetune-head"})
    )
    assert (plain.resize, plain.teacher) == ("crop", trained.resolve())


def test_images_that_have_changed_since_are_refused_unless_they_are_named(
    teacher: Path, colours: Path, reaching_trainer: Any
) -> None:
    given = {"teacher": teacher, "model": "test_vit"}
    with pytest.raises(RunError, match=r"in another part.*Leave --seed and --split out.*--seed 3 --ratio 4:3:1"):
        distill.distill({**given, "seed": 4})
    with pytest.raises(RunError, match="in another part"):
        distill.distill({**given, "split": "8:1:1"})
    spare = sorted((colours / "red").iterdir())[0]
    spare.rename("spare.png")
    with pytest.raises(RunError, match=r"1 image removed \(red/.*Put them back, or name with --data"):
        distill.distill(given)
    assert reaching_trainer(lambda: distill.distill({**given, "data": colours})).data == colours
    colours.rename("moved")
    with pytest.raises(RunError, match="Put them back, or name with --data"):
        distill.distill(given)


def test_parts_that_are_written_down_allow_for_another_seed(
    run: command_line.Run, teacher: Path, colours: Path, reaching_trainer: Any
) -> None:
    code, *_ = run("data", "split", colours, "--seed", 3, "--ratio", "4:3:1")
    assert code == 0
    assert reaching_trainer(lambda: distill.distill({"teacher": teacher, "model": "test_vit", "seed": 4})).seed == 4


@pytest.mark.slow
def test_a_teacher_judged_on_other_images_shows_no_accuracy(quick: dict[str, Any], colours: Path) -> None:
    for number, file in enumerate(sorted(colours.rglob("*.*"))):
        (folder := colours / ("val" if number % 4 == 0 else "train") / file.parent.name).mkdir(
            parents=True, exist_ok=True
        )
        file.rename(folder / file.name)
    for label in ("blue", "green", "red"):
        (colours / label).rmdir()
    chosen = {**quick, "data": colours, "epochs": 1}
    teacher = Trainer().start(TrainSettings.model_validate({**chosen, "out": "teacher"})).run.path
    next((colours / "val/red").iterdir()).unlink()
    student = Trainer().start(TrainSettings.model_validate({**chosen, "out": "student", "teacher": teacher}))
    trained: Any = SimpleNamespace(run=student.run.path, result=student)
    sides = distill.Distilled.of(trained)
    assert (sides.teacher.accuracy, sides.student.accuracy) == (None, student.metrics["val_accuracy"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "teacher and student are missing"),
        ({"model": "test_vit"}, "teacher is missing"),
        ({"teacher": "RUN"}, "student is missing"),
        ({"teacher": "RUN", "model": "test_vit", "lr": -1}, "lr = -1"),
        ({"teacher": "RUN", "model": "test_vit", "feature_weight": 0.1, "trainable_stages": 0}, "stages that learn"),
    ],
)
def test_settings_that_cannot_be_used_are_named(trained: Path, given: dict[str, Any], said: str) -> None:
    given = {name: trained if value == "RUN" else value for name, value in given.items()}
    with pytest.raises(SettingsError, match=said):
        distill.distill(given)


@pytest.mark.parametrize("resume", [None, "auto", "nowhere"])
def test_a_teacher_that_is_no_run_is_said_so(tmp_path: Path, resume: str | None) -> None:
    with pytest.raises(RunError, match="run folder that `lensmith train` made"):
        distill.distill({"teacher": tmp_path / "nowhere", "model": "test_vit"}, None, resume)


def test_a_student_without_weights_on_this_machine_is_told_as_in_train(
    run: command_line.Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, said = run("distill", trained, "--student", "test_vit2", "--out", "student")
    assert code == 2
    assert "--no-pretrained" in said
    assert not Path("student").exists()


def test_the_teacher_s_classes_must_be_the_student_s(trained: Path, colours: Path) -> None:
    (colours / "red").rename(colours / "rose")
    given = {"teacher": trained, "model": "test_vit", "data": colours, "pretrained": False, "out": Path("student")}
    with pytest.raises(SettingsError, match="lacks rose and has also red"):
        distill.distill(given)
    assert not Path("student").exists()
