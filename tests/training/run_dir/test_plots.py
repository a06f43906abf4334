"""Pictures of a run can be looked at, and show what they are for."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lensmith.training.run_dir import plots
from lensmith.training.run_dir.plots import draw_curves, draw_memory, draw_plots

Colour = tuple[int, int, int]

RED, GREEN, ORANGE = (214, 39, 40), (44, 160, 44), (255, 127, 14)
"""Of out-of-memory, of the best epoch, and of the second line or mark."""


def epoch(number: int, phase: str = "all", *, validated: bool = True, best: bool = True) -> dict[str, Any]:
    return {
        "epoch": number, "phase": phase, "train_loss": 1 / number, "train_accuracy": 0.5, "best": best,
        "val_loss": 1.1 / number if validated else None, "val_accuracy": 0.4 if validated else None,
    }  # fmt: skip


def memory(step: int, chunks: int = 1, *, checkpointing: bool = False) -> dict[str, Any]:
    made = {"event": "memory", "step": step, "peak_bytes": 3 * 10**9, "chunks": chunks, "exact": True}
    return {**made, "checkpointing": checkpointing}


def oom(step: int, chunks: int = 2) -> dict[str, Any]:
    return {"event": "oom", "step": step, "retries": 1, "chunks": chunks, "checkpointing": False, "exact": True}


def colours_of(path: Path) -> set[Colour]:
    """What is in a PNG, which must be of a size to look at."""
    assert 5_000 < path.stat().st_size < 500_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert 600 < picture.width < 2_000
        assert 250 < picture.height < 1_000
        counted = picture.convert("RGB").getcolors(1 << 20)
    assert counted is not None
    return {(red, green, blue) for _, (red, green, blue) in counted}  # type: ignore[misc]


def shown(path: Path, *wanted: Colour) -> set[Colour]:
    """Which of the colours stand on the white, thin lines being paler."""
    found = colours_of(path)
    strengths = [step / 100 for step in range(40, 101)]
    return {
        colour
        for colour in wanted
        if any(all(abs(255 - s * (255 - c) - f) < 3 for c, f in zip(colour, pixel, strict=True))
               for s in strengths for pixel in found)
    }  # fmt: skip


@pytest.mark.parametrize(
    "history",
    [
        [epoch(1, "head"), epoch(2, "last 1"), epoch(3), epoch(4, best=False)],
        [epoch(1, "head")],
        [epoch(1, "head@32", validated=False), epoch(2, validated=False, best=False)],
    ],
    ids=["phases", "one epoch", "no validation"],
)
def test_curves_are_a_picture(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    draw_curves(history, tmp_path / "curves.png")
    assert len(colours_of(tmp_path / "curves.png")) > 50


def test_curves_show_validation_and_the_best_epoch_where_there_is_one(tmp_path: Path) -> None:
    history = [epoch(1, best=False), epoch(2, best=False)]
    draw_curves([epoch(1), *history[1:]], tmp_path / "with.png")
    draw_curves([{**line, "val_loss": None, "val_accuracy": None} for line in history], tmp_path / "without.png")
    assert shown(tmp_path / "with.png", ORANGE, GREEN) == {ORANGE, GREEN}
    assert shown(tmp_path / "without.png", ORANGE, GREEN) == set()


@pytest.mark.parametrize(
    ("events", "marks"),
    [
        ([memory(1)], set()),
        ([memory(1), oom(9), memory(9, 2), oom(20, 4), memory(20, 4), memory(60, 3)], {RED}),
        ([memory(1), oom(2, 4), memory(2, 4, checkpointing=True), memory(30, 2, checkpointing=True)], {RED, ORANGE}),
    ],
    ids=["nothing happened", "retries", "checkpointing"],
)
def test_memory_marks_what_ran_out_and_what_was_computed_again(
    tmp_path: Path, events: list[dict[str, Any]], marks: set[Colour]
) -> None:
    draw_memory(events, tmp_path / "memory.png")
    assert shown(tmp_path / "memory.png", RED, ORANGE) == marks


def test_without_memory_events_there_is_no_picture(tmp_path: Path) -> None:
    draw_memory([], tmp_path / "memory.png")
    assert not list(tmp_path.iterdir())


def test_what_prevents_plots_is_reported_once_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("Key backend: 'Qt4Agg' is not a valid value")  # as with MPLBACKEND=Qt4Agg

    monkeypatch.setattr(plots, "draw_curves", refuse)
    run: Any = SimpleNamespace(path=tmp_path, curves=tmp_path / "curves.png", history=lambda: [epoch(1)])
    for _ in range(2):
        draw_plots(run)
    expected = f"the plots of {tmp_path} cannot be drawn: Key backend: 'Qt4Agg' is not a valid value\n"
    assert capsys.readouterr().err == expected


def test_a_full_disk_leaves_the_older_plots_and_is_no_error(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1)
    events = {"epoch": [epoch(1), epoch(2)], "memory": [memory(1)]}
    run: Any = SimpleNamespace(
        path=folder, curves=folder / "curves.png", history=lambda: events["epoch"],
        read_events=lambda *names: [line for name in names for line in events.get(name, [])],
    )  # fmt: skip
    draw_plots(run)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before.keys() == {"curves.png", "memory.png"}
    with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    events["epoch"] += [epoch(3)]
    draw_plots(run)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "filler"} == before
