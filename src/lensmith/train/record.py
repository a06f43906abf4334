"""What a run shows: a moving bar (or a line an epoch) on standard error, events.jsonl, and the curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lensmith.progress import watched


class Recorder:
    """Writes events as they happen and keeps the bar; use as a context.

    Args:
        events: file to append to.
        epochs: of the whole run.
        steps_per_epoch: of the bar.
    """

    def __init__(self, events: Path, epochs: int, steps_per_epoch: int) -> None:
        self._file = events.open("a", encoding="utf-8")
        self._epochs, self._steps = epochs, steps_per_epoch
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not watched())
        self._bar = self._progress.add_task("", total=None, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()
        self._file.close()

    def event(self, name: str, **fields: Any) -> None:
        """Append one line; on disk when this returns, as far as the system's own buffers go."""
        self._file.write(json.dumps({"event": name, **fields}) + "\n")
        self._file.flush()

    def say(self, text: str) -> None:
        """A line for people, above the bar."""
        if watched():
            self._progress.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def begin_epoch(self, epoch: int, stage: str, done: int) -> None:
        """Start the bar of a 0-based epoch at `done` steps."""
        what = f"epoch {epoch + 1}/{self._epochs} {stage}"
        self._progress.reset(self._bar, total=self._steps, completed=done, description=what, figures="")

    def step(self, done: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Move the bar to `done` steps of the epoch."""
        figures = f"loss {loss:.3f}  accuracy {accuracy:.3f}  {images_per_second:,.0f} images/s"
        self._progress.update(self._bar, completed=done, figures=figures)

    def validating(self, done: int, total: int) -> None:
        """Show how far the validation is, in batches."""
        self._progress.update(self._bar, completed=done, total=total, figures="validating")

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Write the epoch's line to events.jsonl and for people."""
        self.event("epoch", **line)
        validation = ""
        if line["val_loss"] is not None:
            validation = f"  val loss {line['val_loss']:.3f} accuracy {line['val_accuracy']:.3f}"
        self.say(
            f"epoch {line['epoch']:>3}/{self._epochs} {line['stage']:<4}  loss {line['train_loss']:.3f} "
            f"accuracy {line['train_accuracy']:.3f}{validation}  {line['images_per_second']:,.0f} images/s "
            f"{line['seconds']:.1f} s{'  best' if line['best'] else ''}"
        )


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy by epoch as a PNG: training and validation, the unfreezing and the best epoch marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [line["epoch"] for line in history]
    best = max((line["epoch"] for line in history if line["best"]), default=None)
    thawed = next((line["epoch"] for line in history if line["stage"] == "all"), None)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [line[f"train_{quantity}"] for line in history], marker="o", ms=3, label="training")
        validation = [line[f"val_{quantity}"] for line in history]
        if None not in validation:
            axes.plot(epochs, validation, marker="o", ms=3, label="validation")
        if thawed is not None and thawed > epochs[0]:
            axes.axvline(thawed - 0.5, color="0.6", ls=":", lw=1, label="backbone unfrozen")
        if best is not None:
            axes.axvline(best, color="tab:green", ls="--", lw=1, label="best")
        axes.set(xlabel="epoch", title=quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
