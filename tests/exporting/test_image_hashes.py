"""A bundle knows the images of its run, of its teacher and of its first weights, and copies among its validation."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.pictures import COLOURS, coloured_picture
from lensmith.bundle.image_hashes import FILE, ImageHashes, content_hashes
from lensmith.config import TrainSettings
from lensmith.data.image_set import PARTS
from lensmith.data.split import prepare
from lensmith.exporting.image_hashes import copies_note, hashes_of, not_learnt
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.run import Run

RunOf = Callable[..., Run]


@pytest.fixture
def run_of(tmp_path: Path, quick_settings: dict[str, Any]) -> RunOf:
    """`run_of(name, seed, **settings)`: a run folder that is not trained, on pictures of its own."""

    def make(name: str, seed: int, **settings: Any) -> Run:
        data = tmp_path / f"photos of {name}"
        for label, colour in COLOURS.items():
            (data / label).mkdir(parents=True)
            for number in range(8):
                coloured_picture(colour, seed=seed + number).save(data / label / f"{number}.png")
        chosen = TrainSettings.model_validate({**quick_settings, "data": data, **settings})
        out = tmp_path / "runs" / name
        return Run.create(out, chosen, prepare(data, chosen.split, chosen.seed), Preprocessing(32), "random")

    return make


def uses(run: Run, hashes: ImageHashes) -> set[tuple[str | None, str | None]]:
    """Part in a run, and use by the hashes, of each of its images."""
    files = ((sample.part, run.images.file(sample)) for sample in run.images.samples)
    return {(part, hashes.use_of(content_hashes(file.read_bytes()))) for part, file in files}


def test_a_bundle_knows_its_training_and_validation_images_and_not_its_test_images(run_of: RunOf) -> None:
    run = run_of("first", 0)
    found = hashes_of(run)
    assert uses(run, found) == {("train", "train"), ("val", "val"), ("test", None)}
    assert (found.entry.train, found.entry.val, found.entry.test) == tuple(len(run.images.part(part)) for part in PARTS)
    tested = [content_hashes(run.images.file(sample).read_bytes()) for sample in run.images.samples]
    assert [found.was_tested(each) for each in tested] == [sample.part == "test" for sample in run.images.samples]
    assert found.complete


def test_images_that_are_removed_after_the_first_export_are_still_known(run_of: RunOf) -> None:
    run = run_of("first", 0)
    first = hashes_of(run)
    shutil.rmtree(run.images.root)
    again = hashes_of(run)
    assert again.complete
    assert (again.train_files == first.train_files).all()
    (run.path / FILE).unlink()
    assert not hashes_of(run).complete
    assert not (run.path / FILE).exists()  # so that the next export looks for them again


@pytest.mark.parametrize("setting", ["teacher", "weights"])
def test_images_of_the_teacher_and_of_the_first_weights_are_known_too(run_of: RunOf, setting: str) -> None:
    first = run_of("first", 0)
    second = run_of("second", 100, weights=first.checkpoints / "best.pt")
    third = run_of("third", 200, **{setting: second.path if setting == "teacher" else second.checkpoints / "best.pt"})
    found = hashes_of(third)
    for run in (first, second, third):
        assert uses(run, found) == {("train", "train"), ("val", "val"), ("test", None)}
    assert found.complete
    shutil.rmtree(second.path)
    assert (hashes_of(third).train_files == found.train_files).all()
    (third.path / FILE).unlink()
    alone = hashes_of(third)
    assert uses(first, alone) == {("train", None), ("val", None), ("test", None)}
    assert not alone.complete


@pytest.mark.parametrize("place", ["runs/first", "elsewhere"])
def test_a_checkpoint_that_was_copied_out_of_its_run_has_learnt_from_unknown_images(
    run_of: RunOf, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of("first", 0)
    weights = tmp_path / place / "copy.pt"
    weights.parent.mkdir(exist_ok=True)
    checkpoint.save({"model": {}}, weights)
    assert hashes_of(run_of("second", 100, weights=weights)).complete == (place == "runs/first")
    assert (str(weights) in capsys.readouterr().err) == (place == "elsewhere")


def test_weights_from_elsewhere_bring_no_images(run_of: RunOf, tmp_path: Path) -> None:
    (tmp_path / "published.pth").write_bytes(b"")
    run = run_of("first", 0, weights=tmp_path / "published.pth")
    assert hashes_of(run).entry.train == len(run.images.part("train"))


def test_copies_of_training_images_fit_neither_confidence_nor_drift(run_of: RunOf) -> None:
    run = run_of("first", 0)
    train, val = ([run.images.file(sample) for sample in run.images.part(part)] for part in ("train", "val"))
    files = tuple(val)
    rows, counts = not_learnt(ImageHashes.of(train, val), files, "val")
    assert rows.tolist() == list(range(len(val)))
    assert (counts.learnt, counts.chosen, copies_note(counts, "val")) == (0, len(val), ())
    for row, copied in ((0, train[3]), (2, train[5])):  # under other names
        shutil.copy(copied, val[row])
    rows, counts = not_learnt(ImageHashes.of(train, val), files, "val")
    assert rows.tolist() == [1, *range(3, len(val))]
    assert (counts.learnt, counts.chosen) == (2, len(val) - 2)
    assert "2 are among the training images" in copies_note(counts, "val")[0]
    assert "learnt from 2 and was chosen on" in counts.headline(len(val), "val")


def test_where_all_are_copies_or_there_is_no_validation_part_all_images_fit_them(run_of: RunOf) -> None:
    run = run_of("first", 0)
    train = [run.images.file(sample) for sample in run.images.part("train")]
    rows, counts = not_learnt(ImageHashes.of(train, train[:4]), train[:4], "val")
    assert (rows.tolist(), counts.learnt) == ([0, 1, 2, 3], 4)
    rows, counts = not_learnt(ImageHashes.of(train, []), train, "train")
    assert (rows == np.arange(len(train))).all()
    assert counts.headline(len(train), "train").endswith(f"not held out: the model learnt from {len(train)} of them")
