"""A student's teacher in the same table."""

import json
import shutil
from pathlib import Path

import pytest

from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings
from lensmith.exporting.export import export
from lensmith.exporting.select_engine import teacher_of
from lensmith.training.run_dir.run import Run


@pytest.fixture
def student(trained: Path, tmp_path: Path) -> Path:
    """The run of a student, whose teacher is a copy of it with a bundle."""
    teacher = Path(shutil.copytree(trained, tmp_path / "teacher"))
    export(ExportSettings(run=teacher), quick=True)
    student = Path(shutil.copytree(trained, tmp_path / "student"))
    description = json.loads((student / "run.json").read_text())
    description["settings"]["teacher"] = str(teacher)
    (student / "run.json").write_text(json.dumps(description))
    return student


@pytest.mark.slow
def test_the_teachers_engine_answers_the_same_images_and_stands_in_the_bundle(student: Path) -> None:
    made = export(ExportSettings(run=student, target="edge"))
    teacher = Bundle.load(made.bundle).manifest.teacher
    assert teacher["model"] == "test_resnet"
    assert teacher["engine"]["accuracy"] == made.manifest.engines[0].accuracy
    assert teacher["engine"]["images_per_second"] > 1
    assert made.as_dict()["teacher"] == teacher


@pytest.mark.slow
def test_a_teacher_without_a_bundle_is_told_and_no_error(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path / "teacher" / "bundle")
    run = Run.open(student)
    assert teacher_of(run, run.images.part("val"), "val") == {}
    assert "the teacher is not in the table" in capsys.readouterr().err


def test_a_run_without_a_teacher_has_none(trained: Path) -> None:
    run = Run.open(trained)
    assert teacher_of(run, run.images.part("val"), "val") == {}
