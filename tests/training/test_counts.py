"""Files that cannot be read change nothing of what is learnt from the others: weights, draws, steps and shares."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lensmith.data.split import prepare
from lensmith.errors import DataError
from lensmith.training import trainer as trainer_module
from lensmith.training.dataloading import decode_cache
from lensmith.training.learner import Learner
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer

HEIC = b"\0\0\0\x18ftypheic" + bytes(400)


@pytest.fixture
def with_unreadable(shared_colours: Path, tmp_path: Path) -> Path:
    """The same images, and twenty files of one class beside them that are none."""
    folder = tmp_path / "mixed"
    shutil.copytree(shared_colours, folder)
    for number in range(20):
        (folder / "green" / f"IMG_{number}.jpg").write_bytes(HEIC)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("_forked_ranks")
@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": "balanced"},
        {"sampling": "balanced", "processes": 2},
        {"class_weights": "balanced", "head_solver": "lbfgs", "cache_gb": 1.0},
        {"sampling": "balanced", "head_solver": "lbfgs", "trainable_stages": 0, "cache_gb": 1.0},
    ],
    ids=["loader", "two processes", "features", "solved head"],
)
def test_a_run_is_the_same_to_the_bit_with_unreadable_files_and_without(
    short: Any, ends_as: Any, with_unreadable: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(decode_cache, "is_worthwhile", lambda *_: True)
    run = Trainer().start(short(data=with_unreadable, **changes)).run
    ends_as(run, **changes)
    left_out = [line["path"] for line in run.read_events("left_out")]
    assert sorted(left_out) == sorted(f"green/IMG_{number}.jpg" for number in range(20))
    assert Counter(sample.label for sample in Run.open(run.path).images.samples) == dict.fromkeys(range(3), 8)
    ends_as(Trainer().start(short(data=with_unreadable, out=run.path.with_name("again"), **changes)).run, **changes)


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits_beside_unreadable_files(
    stopped: Any, ends_as: Any, with_unreadable: Path
) -> None:
    path = stopped(4, data=with_unreadable, class_weights="balanced")
    ends_as(Trainer().resume(path).run, class_weights="balanced")


def test_a_class_without_two_readable_images_is_refused_before_the_first_step(
    short: Any, with_unreadable: Path, tmp_path: Path
) -> None:
    for file in sorted((with_unreadable / "green").glob("0*"))[1:]:
        file.write_bytes(HEIC)
    with pytest.raises(DataError, match=r"at least 2 images that can be read\. .* green\. Left out are: green/00"):
        Trainer().start(short(data=with_unreadable))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"class_weights": "balanced"}, {"sampling": "balanced"}], ids=["weights", "draws"])
def test_files_that_become_unreadable_during_a_run_are_not_counted_from_the_next_epoch_on(
    short: Any, lose: Any, colours: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    training = prepare(colours, (5, 3, 2), 0).part("train")
    lost = [sample.path for sample in training if sample.path.startswith("green")][1:]
    lose(lost)
    seen: list[tuple[int, float]] = []
    plain = Learner.training_step

    def take(self: Learner, batch: Any, *others: Any) -> Any:
        seen.extend(zip(batch.labels.tolist(), self.task.weights(batch.labels).tolist(), strict=True))
        return plain(self, batch, *others)

    monkeypatch.setattr(Learner, "training_step", take)
    found = Trainer().start(short(data=colours, epochs=2, head_epochs=0, **changes))
    assert found.as_dict()["left_out"] == len(lost) == 3
    later = seen[-12 if "sampling" in changes else -9 :]  # the second epoch's draws, or the images that are left
    sums = [sum(weight for label, weight in later if label == number) for number in range(3)]
    assert sums == [len(later) / 3] * 3


@pytest.mark.slow
def test_a_file_that_becomes_unreadable_during_a_run_is_not_counted_by_the_solved_head(
    short: Any, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trainer_module._images

    def lost_since(settings: Any) -> Any:
        images, value_ranges = plain(settings)
        green = [sample for sample in images.part("train") if images.labels[sample.label] == "green"]
        for sample in green[1:]:
            images.file(sample).write_bytes(HEIC)
        return images, value_ranges

    solved = {"head_solver": "lbfgs", "class_weights": "balanced", "trainable_stages": 0, "epochs": 1}
    monkeypatch.setattr(trainer_module, "_images", lost_since)
    lost = Trainer().start(short(data=colours, **solved)).run
    [before] = lost.read_events("head")
    gone = {line["path"] for line in lost.read_events("left_out")}
    assert gone
    monkeypatch.setattr(trainer_module, "_images", plain)
    kept = {sample.path: sample.part for sample in lost.images.samples if sample.path not in gone}
    rows = [f"{path},{path.split('/')[0]},{part}" for path, part in kept.items()]
    (colours / "kept.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    [after] = (
        Trainer()
        .start(short(data=colours / "kept.csv", out=colours.with_name("kept"), **solved))
        .run.read_events("head")
    )
    assert [one["score"] for one in before["tried"]] == pytest.approx(
        [one["score"] for one in after["tried"]], abs=1e-5
    )
