"""A run whose settings, images, classes or network have changed is not gone on with; the difference is shown."""

from pathlib import Path
from typing import Any

import pytest

from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training.run_dir import checkpoint, diff
from lensmith.training.run_dir.run import Run
from lensmith.training.trainer import Trainer

EPOCHS = 3
"""Of the short run of conftest.py."""


def test_what_may_change_are_settings() -> None:
    assert not diff.MAY_CHANGE - TrainSettings.model_fields.keys()


def test_the_same_file_named_from_elsewhere_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings(data=tmp_path, weights=tmp_path / "own.pth")
    monkeypatch.chdir(tmp_path)
    assert diff.of_settings(settings, {"weights": Path("own.pth"), "device": "cuda"}) == []


def test_settings_that_make_another_result_are_refused_with_the_difference(stopped: Any) -> None:
    run = stopped(1)
    before = (run / "run.json").read_bytes()
    said = {"lr": 0.01, "split": (8.0, 1.0, 1.0), "epochs": EPOCHS, "loader_workers": 1, "weights": Path("own.pth")}
    with pytest.raises(RunError) as raised:
        Trainer().resume(run, said)
    assert raised.value.arrived == (
        "These differ: lr: 0.003 in the run, 0.01 now; split: 5,3,2 in the run, 8,1,1 now; "
        "weights: None in the run, own.pth now."
    )
    assert (run / "run.json").read_bytes() == before


def test_another_folder_to_write_to_is_refused(stopped: Any, tmp_path: Path) -> None:
    run = stopped(1)
    with pytest.raises(RunError, match=rf"out: {run} in the run, {tmp_path / 'other'} now"):
        Trainer().resume(run, {"out": tmp_path / "other"})


def test_changed_images_and_classes_are_refused_by_name(
    colours: Path, stopped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(1, data=colours)
    (colours / "red/000.png").unlink()
    (colours / "red/001.jpg").write_bytes((colours / "red/003.jpg").read_bytes() + b"more")
    (colours / "yellow").mkdir()
    for number in range(12):
        (colours / f"yellow/{number:02d}.png").write_bytes((colours / "blue/000.png").read_bytes())
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(RunError) as raised:
        Trainer().resume(run)
    assert raised.value.arrived == (
        "They have changed: classes added: yellow; 1 image removed (red/000.png); 12 images added ("
        + ", ".join(f"yellow/{number:02d}.png" for number in range(10))
        + " and 2 more); 1 image of another size (red/001.jpg)."
    )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_run_keeps_its_corrections_whatever_becomes_of_the_lists(colours: Path, stopped: Any, tmp_path: Path) -> None:
    exclude, relabel = tmp_path / "out.txt", tmp_path / "new.csv"
    exclude.write_text("red/000.png\n")
    relabel.write_text("path,label\nred/001.jpg,blue\n")
    run = stopped(1, data=colours, exclude=exclude, relabel=relabel)
    exclude.unlink()
    relabel.write_text("path,label\ngreen/000.png,red\n")
    opened = Run.open(run)
    assert opened.images.excluded == ("red/000.png",)
    assert diff.with_changes(opened, {}).images.relabelled == (("red/001.jpg", "red", "blue"),)


def test_images_that_moved_to_another_part_are_refused(colours: Path, stopped: Any) -> None:
    run = stopped(1, data=colours)
    rows = [f"{sample.path},{sample.path.split('/')[0]},{sample.part}" for sample in Run.open(run).images.samples]
    swapped = [row.replace(",val", ",train") if row.startswith("blue") else row for row in rows]
    (colours / "splits.csv").write_text("\n".join(["path,label,split", *rows]))
    Trainer().resume(run)
    (colours / "splits.csv").write_text("\n".join(["path,label,split", *swapped]))
    with pytest.raises(RunError, match=r"images in another part \(blue/"):
        Trainer().resume(run)


def test_images_that_are_gone_are_said_to_be_gone_and_may_lie_elsewhere(
    colours: Path, stopped: Any, ends_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(4, data=colours)
    moved = colours.rename(colours.with_name("elsewhere"))
    with pytest.raises(RunError, match=rf"expected in {colours}\..*DIR --resume"):
        Trainer().resume(run)
    monkeypatch.chdir(moved.parent)
    ended = Trainer().resume(run, {"data": Path("elsewhere")})
    ends_as(ended.run)
    assert Run.open(run).images.root == moved
    assert Run.open(run).source == moved


def test_a_checkpoint_of_another_network_is_refused_with_names_and_shapes(
    short: Any, stopped: Any, tmp_path: Path
) -> None:
    other = Trainer().start(short(model="test_efficientnet", epochs=1, out=tmp_path / "other")).run
    run = stopped(4)
    last = run / "checkpoints/last.pt"
    last.write_bytes(other.last.read_bytes())
    events_before = (run / "events.jsonl").read_text()
    with pytest.raises(RunError, match=r"of this run's test_resnet .*missing \(conv1.*of another name \(") as raised:
        Trainer().resume(run)
    assert "×" in raised.value.arrived or "of another name" in raised.value.arrived
    assert last.read_bytes() == other.last.read_bytes()
    assert (run / "events.jsonl").read_text() == events_before


@pytest.mark.parametrize("what", ["learner", "position", "optimizer"])
def test_a_checkpoint_without_its_parts_is_refused(stopped: Any, what: str) -> None:
    run = stopped(4)
    last = run / "checkpoints/last.pt"
    state = checkpoint.load(last)
    if what == "optimizer":
        state["learner"]["optimizer"]["param_groups"].pop()
    else:
        del state[what]
    checkpoint.save(state, last)
    with pytest.raises(RunError, match="It does not fit"):
        Trainer().resume(run)


def test_a_description_edited_into_nonsense_is_said_to_be_no_run(stopped: Any) -> None:
    run = stopped(1)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"epochs": 3', '"epochs": "many"'))
    with pytest.raises(RunError, match=r"It is not whole .*epochs"):
        Trainer().resume(run)
