"""The recorder of a run under way: a progress bar or a line an epoch on standard error, and events.jsonl."""

import json
import os
import sys
import time
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lensmith.core.progress import is_terminal
from lensmith.training.microbatch.microbatch import StepResult
from lensmith.training.run_dir.progress import Figures

MEMORY_EVERY_S = 10.0
"""Seconds between two events about memory while nothing changes."""


class Recorder:
    """Writes events and messages as they happen, and moves the progress bar; use as a context.

    Args:
        events: the file to append to; None on ranks that neither write nor print.
        epochs: number of epochs of the whole run.
        steps_per_epoch: length of the progress bar.
    """

    def __init__(self, events: Path | None, epochs: int, steps_per_epoch: int) -> None:
        self._events = events
        self._file: RawIOBase | None = None
        self._unwritten = b""
        self._epochs, self._steps = epochs, steps_per_epoch
        self._shows = events is not None and is_terminal()
        self._memory: dict[str, Any] = {}
        self._memory_at = 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not self._shows)
        self._bar = self._progress.add_task("", total=None, figures="")

    def __enter__(self) -> Self:
        self._file = None if self._events is None else self._events.open("ab", buffering=0)
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()
        if self._file is not None:
            self._write()
            self._file.close()

    def event(self, name: str, **fields: Any) -> None:
        """Append one event with the Unix time, and hand it to the system at once.

        What a full disk does not take is written with a later event: it is for checkpoints to end a run over it.
        """
        if self._file is not None:
            line = json.dumps({"event": name, **fields, "time": round(time.time(), 3)}) + "\n"
            was_written, self._unwritten = not self._unwritten, self._unwritten + line.encode()
            problem = self._write()
            if problem is not None and was_written:
                self.log(f"events cannot be written to {self._events} for now: {problem.strerror}")

    def _write(self) -> OSError | None:
        """Write what is due; returns why some of it could not be written. A disk may take a part of a line."""
        assert self._file is not None
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            return error
        return None

    def log(self, text: str) -> None:
        """Print a message above the progress bar."""
        if self._shows:
            self._progress.console.print(text, highlight=False, markup=False)
        elif self._file is not None:
            print(text, file=sys.stderr, flush=True)

    def begin_epoch(self, epoch: int, phase: str, done: int) -> None:
        """Start the progress bar of a 0-based epoch at `done` steps."""
        what = f"epoch {epoch + 1}/{self._epochs} {phase}"
        self._progress.reset(self._bar, total=self._steps, completed=done, description=what, figures="")

    def step(self, step: int, done: int, figures: Figures, outcome: StepResult, peak_bytes: int) -> None:
        """Move the progress bar; write an event where memory ran out or chunks changed, and every MEMORY_EVERY_S.

        Args:
            step: the run's 1-based step.
            done: number of steps of the epoch that are done.
            figures: the epoch's figures so far.
            outcome: the step's result.
            peak_bytes: the most memory in use since the last call.
        """
        chunks = f"{outcome.chunks} chunk{'s' if outcome.chunks > 1 else ''}{'*' if outcome.checkpointing else ''}"
        text = (
            f"loss {figures.loss:.3f}  accuracy {figures.accuracy:.3f}  {figures.images_per_second:,.0f} images/s  "
            f"{chunks}  {peak_bytes / 1e9:.1f} GB"
        )
        self._progress.update(self._bar, completed=done, figures=text)
        cut = {"chunks": outcome.chunks, "checkpointing": outcome.checkpointing, "exact": outcome.exact}
        if outcome.retries:
            self.event("oom", step=step, retries=outcome.retries, **cut)
        if cut != self._memory or time.monotonic() - self._memory_at > MEMORY_EVERY_S:
            if self._memory.get("exact", True) and not outcome.exact:
                self.log(f"step {step}: chunks below BatchNorm's virtual batch: their number changes the result")
            self._memory, self._memory_at = cut, time.monotonic()
            self.event("memory", step=step, peak_bytes=peak_bytes, **cut)

    def working(self, what: str, done: int, total: int) -> None:
        """Show the progress of work between epochs, such as computing features."""
        self._progress.update(self._bar, description=what, completed=done, total=total, figures="")

    def validating(self, done: int, total: int) -> None:
        """Show the progress of validation, in batches."""
        self._progress.update(self._bar, completed=done, total=total, figures="validating")

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Write the epoch's event and print its line."""
        self.event("epoch", **line)
        if self._file is not None:
            with suppress(OSError):
                os.fsync(self._file.fileno())  # on disk before the checkpoint that follows it
        validation = cut = ""
        if line["val_loss"] is not None:
            validation = f"  val loss {line['val_loss']:.3f} accuracy {line['val_accuracy']:.3f}"
        if line["chunks"] > 1 or line["checkpointing"]:
            cut = f"  {line['chunks']} chunk{'s' * (line['chunks'] > 1)}{', checkpointing' * line['checkpointing']}"
        self.log(
            f"epoch {line['epoch']:>3}/{self._epochs} {line['phase']:<4}  loss {line['train_loss']:.3f} "
            f"accuracy {line['train_accuracy']:.3f}{validation}  {line['images_per_second']:,.0f} images/s "
            f"{line['seconds']:.1f} s{cut}{'  best' if line['best'] else ''}"
        )
