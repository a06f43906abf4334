"""A teacher answers as its run does, for the same classes and parts, and what it teaches survives a stop."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from lensmith.config import TrainSettings
from lensmith.errors import RunError, SettingsError
from lensmith.imaging.preprocessing import pixels, preprocess
from lensmith.training.loss import Distillation, task_of
from lensmith.training.models import backbone
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run
from lensmith.training.teacher import Teacher
from lensmith.training.trainer import Trainer

CPU = torch.device("cpu")
LABELS = ("blue", "green", "red")


def of_run(path: Path, size: int) -> tuple[Tensor, Tensor]:
    """Some of a run's images in 0..1 at `size`, and what its best network answers to them at its own size."""
    run = Run.open(path)
    state = checkpoint.load(run.best)["model"]
    model = backbone.rebuild(run.settings, len(run.images.labels), state)
    encoded = [run.images.file(sample).read_bytes() for sample in run.images.part("val")]
    pictures = [torch.tensor(pixels(one, replace(run.preprocessing, image_size=size))) for one in encoded]
    inputs = torch.stack([torch.from_numpy(preprocess(one, run.preprocessing)) for one in encoded])
    with torch.no_grad():
        return torch.stack(pictures).permute(0, 3, 1, 2) / 255, model(inputs)


def test_a_teacher_answers_as_its_run_s_best_epoch_would(trained: Path) -> None:
    pictures, answers = of_run(trained, 32)
    teacher = Teacher.of(trained, LABELS)
    with torch.no_grad():
        assert torch.allclose(teacher(pictures), answers, atol=1e-4)
    assert not any(module.training for module in teacher.model.modules())


def test_pictures_of_another_size_are_brought_to_the_teacher_s(trained: Path) -> None:
    pictures, answers = of_run(trained, 64)
    with torch.no_grad():
        assert torch.equal(Teacher.of(trained, LABELS)(pictures).argmax(1), answers.argmax(1))


def test_the_settings_name_the_teacher_and_its_share(trained: Path) -> None:
    chosen = {"data": "photos", "teacher": trained, "teacher_weight": 1.0, "label_smoothing": 0.0}
    task = task_of(TrainSettings.model_validate({**chosen, "teacher_temperature": 4.0}), LABELS, Counter(), CPU)
    assert isinstance(task, Distillation)
    pictures, answers = of_run(trained, 32)
    assert float(task.loss(answers, torch.zeros(len(answers), dtype=torch.int64), pictures)) == pytest.approx(
        0, abs=1e-4
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("blue", "green"), "has also red"),
        (("blue", "green", "red", "teal"), "lacks teal"),
        (("blue", "green", "pink"), "lacks pink and has also red"),
        (("red", "green", "blue"), "in another order"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_with_the_difference(
    trained: Path, labels: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        Teacher.of(trained, labels)


def test_a_teacher_without_an_epoch_is_refused_and_leaves_nothing(
    trained: Path, short: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    begun = Path(shutil.copytree(trained, tmp_path / "begun"))
    (begun / "checkpoints/best.pt").unlink()
    with pytest.raises(RunError, match="Let the teacher finish an epoch first"):
        Trainer().start(short(teacher=begun))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"seed": 1}, {"split": (8, 1, 1)}], ids=str)
def test_a_student_of_other_parts_is_refused(
    trained: Path, short: Callable[..., TrainSettings], tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=r"\d images? would change .*--seed 0 --ratio 5:3:2"):
        Trainer().start(short(teacher=trained, **changes))
    assert not (tmp_path / "run").exists()


def test_images_in_another_folder_are_told_by_their_bytes(
    trained: Path, colours: Path, short: Callable[..., TrainSettings]
) -> None:
    with pytest.raises(SettingsError, match="would change"):
        Trainer().start(short(teacher=trained, data=colours, seed=1))
    for file in colours.rglob("*.*"):  # other pictures of the same size under the same names
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert Trainer().start(short(teacher=trained, data=colours, seed=1, epochs=1)).epochs == 1


def test_a_student_that_is_stopped_comes_to_the_same_bits(trained: Path, stopped: Any, ends_as: Any) -> None:
    changes = {"feature_weight": 0.3, "model": "test_efficientnet", "ema": 0.9, "mixup": 0.2, "teacher": trained}
    run = stopped(4, save_minutes=1e-9, **changes)
    ends_as(Trainer().resume(run).run, **changes)


def test_a_checkpoint_holds_the_student_alone(trained: Path, short: Callable[..., TrainSettings]) -> None:
    run = Trainer().start(short(epochs=1, model="test_efficientnet", teacher=trained, feature_weight=0.2)).run
    student = timm.create_model("test_efficientnet", num_classes=3)
    assert checkpoint.load(run.last)["learner"]["model"].keys() == student.state_dict().keys()


@pytest.mark.usefixtures("_forked_ranks", "_no_plots")
def test_two_processes_learn_from_a_teacher_what_one_does(
    trained: Path, quick: dict[str, Any], shared_colours: Path, tmp_path: Path
) -> None:
    runs = []
    for processes in (1, 2):
        chosen = {"data": shared_colours, "out": tmp_path / f"{processes}", "epochs": 2, "processes": processes}
        teaching = {"teacher": trained, "feature_weight": 0.4, "model": "test_byobnet", "augment": "flip"}
        runs.append(Trainer().start(TrainSettings.model_validate({**quick, **chosen, **teaching})).run)
    one, two = (checkpoint.load(run.last)["learner"]["model"] for run in runs)
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-4, atol=1e-6), name
