"""What a run leaves to look at: a line an epoch, for programs and for people, and a picture."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lensmith.train.record import Recorder, draw_curves


def line(epoch: int, stage: str = "all", *, validated: bool = True, **changes: Any) -> dict[str, Any]:
    made = {
        "epoch": epoch, "stage": stage, "step": 3 * epoch, "train_loss": 1 / epoch, "train_accuracy": 0.5,
        "val_loss": 1.1 / epoch if validated else None, "val_accuracy": 0.4 if validated else None, "images": 12,
        "images_per_second": 1234.5, "data_wait_share": 0.1, "seconds": 0.7, "best": True,
    }  # fmt: skip
    return {**made, **changes}


def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "events.jsonl", epochs=10, steps_per_epoch=3)


def test_events_are_appended_a_line_each_and_on_disk_at_once(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"event": "old"}\n')
    with recorder(tmp_path) as made:
        made.event("start", step=0)
        assert len(events.read_text().splitlines()) == 2
        made.end_epoch(line(1))
    read = [json.loads(text) for text in events.read_text().splitlines()]
    assert [event["event"] for event in read] == ["old", "start", "epoch"]
    assert read[2] == {"event": "epoch", **line(1)}


def test_people_get_a_line_an_epoch_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with recorder(tmp_path) as made:
        made.begin_epoch(0, "head", 0)
        made.step(1, 0.5, 0.5, 100.0)
        made.validating(1, 2)
        made.end_epoch(line(1, "head"))
        made.end_epoch(line(2, validated=False, best=False))
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert first == (
        "epoch   1/10 head  loss 1.000 accuracy 0.500  val loss 1.100 accuracy 0.400  1,234 images/s 0.7 s  best"
    )
    assert second == "epoch   2/10 all   loss 0.500 accuracy 0.500  1,234 images/s 0.7 s"
    assert printed.out == ""


@pytest.mark.parametrize("watched", [True, False])
def test_brackets_in_a_file_name_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr("lensmith.train.record.watched", lambda: watched)
    with recorder(tmp_path) as made:
        made.say("left out: cat[/new].jpg")
    assert "cat[/new].jpg" in capsys.readouterr().err


def test_on_a_terminal_the_bar_tells_loss_accuracy_speed_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lensmith.train.record.watched", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with recorder(tmp_path) as made:
        made.begin_epoch(4, "all", 1)
        made.step(2, 0.75, 0.625, 321.0)
    shown = capsys.readouterr().err
    for part in ("epoch 5/10 all", "loss 0.750", "accuracy 0.625", "321 images/s", "2/3", "left"):
        assert part in shown


@pytest.mark.parametrize(
    "history",
    [
        [line(1, "head"), line(2, "head"), line(3), line(4, best=False)],
        [line(1, "head")],
        [line(1, validated=False)],
        [line(1, "head", validated=False), line(2, validated=False, best=False)],
    ],
    ids=["two stages", "one epoch", "no validation", "two stages without validation"],
)
def test_curves_are_a_picture(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    draw_curves(history, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 600
        colours = picture.convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert len(colours) > 50
