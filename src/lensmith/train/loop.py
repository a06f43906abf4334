"""The loop over stages and epochs: steps, validation, checkpoints, and stopping when told to.

A checkpoint is taken before the first step, at the end of each epoch, every ten minutes, and when the run is told to
stop; always at a step boundary.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lensmith.errors import DataError, RunError
from lensmith.machine import allowed_cores
from lensmith.train import checkpoint
from lensmith.train.dataset import Images, Order, close, default_workers, loader
from lensmith.train.interruption import EXIT_CODES, Interruption
from lensmith.train.recipe import Plan, Stage
from lensmith.train.record import Recorder, draw_curves
from lensmith.train.run import Run
from lensmith.train.step import Learner
from lensmith.train.validate import Answers, answers

SAVE_EVERY_S = 600.0
SHOW_EVERY_S = 0.25
SHOWN_FILES = 5


class RunInterruptedError(RunError):
    """The run was told to stop, and is saved; `exit_code` tells by which signal."""


@dataclass
class Position:
    """Where a run stands at a step boundary; all of it goes into the checkpoint.

    Attributes:
        epoch: 0-based, the one under way.
        batch: batches of it that are done.
        step: optimizer steps done since the run began.
        best_score: the best epoch's accuracy or negative loss, on the validation part.
        stale: epochs of the last stage since then.
        seen: images of this epoch so far.
        loss_sum: sum of their losses.
        correct: how many of them were answered right.
        seconds: spent on this epoch's steps.
        waited_s: of those, waiting for data.
        finished: nothing is left to do.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_score: float | None = None
    stale: int = 0
    seen: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    finished: bool = False


class Loop:
    """A run being trained.

    Args:
        run: its folder.
        learner: network and optimizer.
    """

    def __init__(self, run: Run, learner: Learner) -> None:
        self.folder, self.settings, self.learner = run, run.settings, learner
        training, validation = run.images.part("train"), run.images.part("val")
        batch_size, seed, device = self.settings.batch_size, self.settings.seed, learner.device
        workers = default_workers(device) if self.settings.workers is None else self.settings.workers
        self.plan = Plan.of(self.settings, len(training))
        self.order = Order(len(training), batch_size, seed)
        dataset = Images(run.images, training, run.preprocessing, learner.augment, seed)
        self.batches = loader(dataset, self.order, workers, device)
        self.validation = None
        if validation:
            dataset = Images(run.images, validation, run.preprocessing, None, seed)
            self.validation = loader(dataset, Order(len(validation), 2 * batch_size, None), workers, device)
        self.at = Position()
        self._unreadable: set[str] = set()
        self._lost: set[str] = set()
        self._saved_at = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint."""
        self.learner.restore(state["learner"])
        self.at = Position(**state["position"])

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunInterruptedError: a signal asked the run to stop; it is saved.
            RunError: the loss is no longer a number.
            DataError: no training image, or no validation image, can be read.
        """
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))  # OMP_NUM_THREADS may say fewer
        recorder = Recorder(self.folder.events, self.settings.epochs, self.plan.steps_per_epoch)
        try:
            with Interruption() as interruption, recorder:
                self._run(recorder, interruption)
        finally:
            for batches in filter(None, (self.batches, self.validation)):
                close(batches)

    def _run(self, recorder: Recorder, interruption: Interruption) -> None:
        at, plan = self.at, self.plan
        recorder.event("resume" if at.step else "start", step=at.step, total_steps=plan.total_steps)
        if not self.folder.last.exists():
            self._save()
            self._open(recorder)
        stage: Stage | None = None
        while not at.finished:
            if stage != plan.stage(at.epoch):
                stage = plan.stage(at.epoch)
                recorder.event("stage", stage=stage.name, precision=self.learner.enter(stage))
            self._train(stage, recorder, interruption)
            self._judge(stage, recorder)
            self._save()
            if interruption.received is not None:
                self._stop(recorder, interruption)
        recorder.event("end", step=at.step)

    def _open(self, recorder: Recorder) -> None:
        """Say what is trained on what, and name the files of the folder that are left out."""
        images = self.folder.images
        parts = ", ".join(f"{len(images.part(part)):,} {part}" for part in images.parts)
        recorder.say(f"{self.settings.model} on {self.learner.device}: {len(images.labels)} classes, {parts}")
        for note in images.notes:
            recorder.say(note)
        for number, (path, reason) in enumerate(images.set_aside):
            recorder.event("left_out", path=path, reason=reason)
            if number < SHOWN_FILES:
                recorder.say(f"left out: {path}: {reason}")
        if len(images.set_aside) > SHOWN_FILES:
            recorder.say(f"… and {len(images.set_aside) - SHOWN_FILES:,} more; all are named in {self.folder.events}")

    def _train(self, stage: Stage, recorder: Recorder, interruption: Interruption) -> None:
        """The rest of the epoch's steps."""
        at = self.at
        if at.step >= self.plan.total_steps:  # stopped at the very last one
            return
        self.order.epoch, self.order.skip = at.epoch, at.batch
        recorder.begin_epoch(at.epoch, stage.name, at.batch)
        sums = torch.zeros(2, dtype=torch.float64, device=self.learner.device)
        clock = shown = time.perf_counter()
        for batch in self.batches:
            waited_s = time.perf_counter() - clock
            self._leave_out(batch.unreadable, recorder)
            if len(batch.labels):
                sums += self.learner.take(batch, self.plan, at.step)
            at.batch, at.step, at.seen = at.batch + 1, at.step + 1, at.seen + len(batch.labels)
            now = time.perf_counter()
            at.seconds, at.waited_s, clock = at.seconds + now - clock, at.waited_s + waited_s, now
            last = at.batch == len(self.order) or at.step == self.plan.total_steps
            told_to_stop = interruption.received is not None
            if last or told_to_stop or now - shown > SHOW_EVERY_S:
                # Reading the sums waits for the device, so it is not done at every step.
                loss, correct = sums.tolist()
                at.loss_sum, at.correct, shown = at.loss_sum + loss, at.correct + correct, now
                sums.zero_()
                seen = max(1, at.seen)
                recorder.step(at.batch, at.loss_sum / seen, at.correct / seen, at.seen / at.seconds)
                if told_to_stop or time.monotonic() - self._saved_at > SAVE_EVERY_S:
                    self._save()
            if told_to_stop:
                self._stop(recorder, interruption)
            if last:
                break

    def _judge(self, stage: Stage, recorder: Recorder) -> None:
        """End the epoch: validate, keep it if it is the best, and move to the next."""
        at, settings = self.at, self.settings
        seen, seconds = max(1, at.seen), max(1e-9, at.seconds)
        train_loss = at.loss_sum / seen
        self._name_lost_classes(recorder)
        self._require_finite("training", train_loss)
        found: Answers | None = None
        if self.validation is not None:
            found = answers(self.learner.model, self.validation, self.learner.device, recorder.validating)
            self._leave_out(found.unreadable, recorder)
            self._require_finite("validation", found.loss)
        score = None if found is None else found.accuracy if settings.monitor == "accuracy" else -found.loss
        better = score is None or at.best_score is None or score > at.best_score
        if better:
            at.best_score, at.stale = score, 0
            checkpoint.save({"model": self.learner.model.state_dict(), "epoch": at.epoch + 1}, self.folder.best)
        elif stage == self.plan.stages[-1]:
            at.stale += 1
        recorder.end_epoch(
            {
                "epoch": at.epoch + 1,
                "stage": stage.name,
                "step": at.step,
                "train_loss": train_loss,
                "train_accuracy": at.correct / seen,
                "val_loss": found.loss if found else None,
                "val_accuracy": found.accuracy if found else None,
                "images": at.seen,
                "images_per_second": at.seen / seconds,
                "data_wait_share": at.waited_s / seconds,
                "seconds": at.seconds,
                "best": better,
            }
        )
        draw_curves(self.folder.history(), self.folder.curves)
        at.epoch, at.batch = at.epoch + 1, 0
        at.seen, at.loss_sum, at.correct, at.seconds, at.waited_s = 0, 0.0, 0.0, 0.0, 0.0
        at.finished = at.epoch >= settings.epochs or at.step >= self.plan.total_steps or at.stale >= settings.patience

    def _save(self) -> None:
        checkpoint.save({"learner": self.learner.state(), "position": asdict(self.at)}, self.folder.last)
        self._saved_at = time.monotonic()

    def _require_finite(self, what: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"A finite {what} loss was expected.",
                f"In epoch {self.at.epoch + 1} it is {loss}.",
                f"Try a smaller rate (--lr {self.settings.lr / 10:g}) or --precision fp32.",
            )

    def _leave_out(self, unreadable: list[tuple[str, str]], recorder: Recorder) -> None:
        for path, reason in unreadable:
            if path not in self._unreadable:
                self._unreadable.add(path)
                recorder.event("left_out", path=path, reason=reason)
                recorder.say(f"left out: {path}: {reason}")

    def _name_lost_classes(self, recorder: Recorder) -> None:
        """Name the classes that have lost all their training images.

        Raises:
            DataError: all of them have.
        """
        if not self._unreadable:
            return
        images = self.folder.images
        left = Counter(sample.label for sample in images.part("train") if sample.path not in self._unreadable)
        if not left:
            raise DataError(
                f"Training images that can be read were expected in {images.root}.",
                f"None of {len(images.part('train')):,} can.",
                f"See what is wrong with each: lensmith data check {images.root}",
            )
        lost = {label for number, label in enumerate(images.labels) if not left[number]}
        for label in sorted(lost - self._lost):
            recorder.event("class_left_out", label=label)
            recorder.say(f"left out: {label}: none of its training images can be read, so it will not be recognised")
        self._lost |= lost

    def _stop(self, recorder: Recorder, interruption: Interruption) -> None:
        assert interruption.received is not None
        recorder.event("interrupted", step=self.at.step, signal=interruption.received.name)
        error = RunInterruptedError(
            f"The run {self.folder.path} was to take {self.plan.total_steps:,} steps.",
            f"{interruption.received.name} stopped it after step {self.at.step:,}, and it is saved.",
            f"Go on with: lensmith train --resume {self.folder.path}",
        )
        error.exit_code = EXIT_CODES[interruption.received]
        raise error
