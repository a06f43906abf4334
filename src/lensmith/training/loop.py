"""The loop over phases and epochs: steps, validation, checkpoints, and stopping when told to.

A checkpoint is taken before the first step, at the end of each epoch, every `save_minutes`, and when the run is told to
stop; always at a step boundary, and at the same one on every rank, since stopping and saving are voted.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, replace
from itertools import chain
from typing import Any, cast

import torch

from lensmith.core.machine import allowed_cores
from lensmith.errors import RunError
from lensmith.training.data_errors import SHOWN_FILES, Faults
from lensmith.training.dataloading.dataset import Batch, ImageDataset
from lensmith.training.dataloading.loader import build_loader, close_loader, default_loader_workers
from lensmith.training.dataloading.prefetch import prefetch
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.feature_source import Source, StoppedError, Taken
from lensmith.training.learner import Learner
from lensmith.training.linear_probe.fit import can_solve, fit_linear_probe
from lensmith.training.loss import Task, task_of
from lensmith.training.microbatch import malloc, memory
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.microbatch import StepResult
from lensmith.training.microbatch.rng_state import random_state, set_random_state
from lensmith.training.microbatch.usage import PeakMemory
from lensmith.training.models.backbone import Network
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.plots import draw_curves, draw_memory
from lensmith.training.run_dir.progress import Figures, Position
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import Phase, Plan
from lensmith.training.signals import EXIT_CODES, Interruption, RunInterruptedError
from lensmith.training.validate import Answers, answers

SHOW_EVERY_S = 0.25


class Loop:
    """A run being trained.

    Args:
        run: its folder.
        network: as `backbone.build` made it.
        device: where to train.
        world: the ranks that train together.
    """

    def __init__(self, run: Run, network: Network, device: torch.device, world: World | None = None) -> None:
        self.folder, self.settings, self.device, self.world = run, run.settings, device, world or World()
        settings, images = self.settings, run.images
        training, validation = images.part("train"), images.part("val")
        counts = Counter(sample.label for sample in training)
        self.learner = Learner(network, settings, run.preprocessing, images.labels, counts, device, self.world)
        self.plan = Plan.of(settings, len(training), len(network.stages) - 1)
        rank, ranks = self.world.rank, self.world.size
        workers = settings.loader_workers
        if workers is None:
            workers = default_loader_workers(device, self.world.local_size)
        balance = [sample.label for sample in training] if settings.sampling == "balanced" else None
        self.order = EpochSampler(
            len(training), settings.step_images, settings.seed, balance=balance, rank=rank, ranks=ranks
        )
        dataset = ImageDataset(images, training, run.preprocessing, self.learner.augment, settings.seed)
        self.batches = build_loader(dataset, self.order, workers, device)
        self.validation = None
        if validation:
            dataset = ImageDataset(images, validation, run.preprocessing, None, settings.seed)
            order = EpochSampler(len(validation), 2 * settings.batch_size, None, rank=rank, ranks=ranks)
            self.validation = build_loader(dataset, order, workers, device)
        self.at, self.figures = Position(), Figures()
        self._backends: dict[str, str] = {}
        self._saved_at = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint."""
        self.learner.restore(state["learner"])
        self.at = Position(**state["position"])
        self.plan = replace(self.plan, solved=self.at.solved)
        self._backends.update(state["runners"])
        ranks = state["ranks"]
        if len(ranks) == self.world.size:
            own = ranks[self.world.rank]
            self.figures = Figures(**own["figures"])
            set_random_state(own["random"], self.device)
        elif self.world.is_rank_zero:  # more ranks or fewer than before: one of them takes over what was counted
            self.figures = Figures.of_all([rank["figures"] for rank in ranks])

    def limit(self, end_s: float, elapsed_s: float) -> None:
        """Take no step later than `end_s` after the run's begin, which was `elapsed_s` ago."""
        self.at.end_s, self.at.elapsed_s = end_s, elapsed_s

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunInterruptedError: a signal asked the run to stop; it is saved.
            RunError: the loss is no longer a number, or memory is too small.
            DataError: no training image, or no validation image, can be read.
        """
        torch.set_num_threads(max(1, min(torch.get_num_threads(), allowed_cores() // self.world.local_size)))
        events = self.folder.events if self.world.is_rank_zero else None
        recorder = Recorder(events, self.settings.epochs, self.plan.steps_per_epoch)
        cap = memory.MemoryCap(self.device, self.settings.memory_fraction, self.world.local_size)
        try:
            with Interruption() as interruption, recorder, cap:
                self._run(recorder, interruption, cap)
        finally:
            for batches in filter(None, (self.batches, self.validation)):
                close_loader(batches)
            malloc.restore_defaults()

    def _run(self, recorder: Recorder, interruption: Interruption, cap: memory.MemoryCap) -> None:
        at, plan = self.at, self.plan
        self._started = time.monotonic() - at.elapsed_s
        self._interruption, self._recorder = interruption, recorder
        self._faults = Faults(self.folder.images, self.settings, recorder)
        self._peak = PeakMemory(self.device)
        name = "resume" if at.step else "start"
        recorder.event(name, step=at.step, total_steps=plan.total_steps, ranks=self.world.size, cap_bytes=cap.bytes)
        if not self.world.broadcast_object(self.folder.begun):
            self._save()
            self._open(recorder)
        source = Source(self.folder, self.learner, self.order, recorder, lambda: self._wish() is StepVerdict.STOP)
        source.backends = self._backends
        phase: Phase | None = None
        while not at.finished:
            if phase != plan.phase(at.epoch):
                phase = plan.phase(at.epoch)
                taken = self._enter(phase, source)
            if taken is not None and self._solves(phase):
                try:
                    self._solve(phase, taken)
                except StoppedError:
                    self._save()
                    self._stop()
            else:
                self._train(phase, recorder)
            self._judge(phase, taken)
            if self._save() is StepVerdict.STOP:
                self._stop()
        recorder.event("end", step=at.step)

    def _open(self, recorder: Recorder) -> None:
        """Say what is trained on what, and name the files of the folder that are left out."""
        images = self.folder.images
        parts = ", ".join(f"{len(images.part(part)):,} {part}" for part in images.parts)
        where = f"{self.device}" if self.world.size == 1 else f"{self.world.size} × {self.device.type}"
        recorder.say(f"{self.settings.model} on {where}: {len(images.labels)} classes, {parts}")
        for note in images.notes:
            recorder.say(note)
        for number, (path, reason) in enumerate(images.set_aside):
            recorder.event("left_out", path=path, reason=reason)
            if number < SHOWN_FILES:
                recorder.say(f"left out: {path}: {reason}")
        if len(images.set_aside) > SHOWN_FILES:
            recorder.say(f"… and {len(images.set_aside) - SHOWN_FILES:,} more; all are named in {self.folder.events}")

    def _enter(self, phase: Phase, source: Source) -> Taken | None:
        """Begin a phase, on features if it can."""
        try:
            taken = source.enter(phase)
            if taken is None:
                self._decode_once(phase, source)
        except StoppedError:
            self._save()
            self._stop()
        split_point = taken.split_point if taken else None
        self._recorder.event("phase", phase=phase.name, precision=self.learner.enter(phase, split_point))
        self._batches = taken.training if taken else self.batches
        return taken

    def _decode_once(self, phase: Phase, source: Source) -> None:
        """Let the data processes read pictures that are decoded already, where that pays."""
        for batches in filter(None, (self.batches, self.validation)):
            dataset = cast(ImageDataset, batches.dataset)
            found = source.decoded(dataset, phase)
            if found is not None or dataset.decoded is not None:
                dataset.decoded = found
                close_loader(batches)  # its processes hold the dataset as it was

    def _solves(self, phase: Phase) -> bool:
        """Whether the phase's epochs are one solution; not where it has begun with steps, or is told how many."""
        fresh = self.at.epoch == phase.first_epoch and not self.at.batch
        return phase.trainable == 0 and fresh and can_solve(self.learner.network.head, self.settings)

    def _solve(self, phase: Phase, taken: Taken) -> None:
        """The head by solving, in the place of all epochs of its phase."""
        started = time.perf_counter()
        images, at = self.folder.images, self.at
        labels, held_labels = (torch.tensor([one.label for one in images.part(part)]) for part in ("train", "val"))

        unreadable = {row for rows in taken.views for row in rows.unreadable.items()}
        self._faults.leave_out([(images.part("train")[row].path, reason) for row, reason in sorted(unreadable)])
        self._faults.name_lost_classes()
        held = None if taken.held is None else (taken.held, held_labels)

        def watch(done: int, total: int) -> None:
            self._recorder.working("head", done, total)
            if self._interruption.received is not None and self.world.size == 1:
                raise StoppedError

        chosen = self.world.on_rank_zero(
            lambda: fit_linear_probe(
                taken.views, labels, len(images.labels), held, self._task_of_solving(),
                self.settings, self.device, watch,
            )
        )  # fmt: skip
        self.learner.put_head(chosen.head)
        seconds = time.perf_counter() - started
        self._recorder.event(
            "head", way=chosen.head.name, strength=chosen.head.strength, tried=chosen.tried, seconds=seconds
        )
        at.solved, at.epoch, at.batch = True, phase.end_epoch - 1, 0
        at.step = min(self.plan.total_steps, phase.end_epoch * self.plan.steps_per_epoch)
        self.plan = replace(self.plan, solved=True)
        if self.world.is_rank_zero:
            self.figures = Figures(chosen.seen, chosen.weight, chosen.loss_sum, chosen.correct, seconds + taken.seconds)

    def _task_of_solving(self) -> Task:
        """The task, with classes drawn equally often as classes that count equally."""
        if self.settings.sampling == "shuffle":
            return self.learner.task
        counted = self.settings.model_copy(update={"sampling": "shuffle", "class_weights": "balanced"})
        counts = Counter(sample.label for sample in self.folder.images.part("train"))
        return task_of(counted, self.folder.images.labels, counts, self.device, self.learner.network)

    def _train(self, phase: Phase, recorder: Recorder) -> None:
        """The rest of the epoch's steps."""
        at, figures = self.at, self.figures
        if at.step >= self.plan.total_steps:  # stopped at the very last one
            return
        self.order.epoch, self.order.skip, self.order.size = at.epoch, at.batch, phase.image_size
        recorder.begin_epoch(at.epoch, phase.name, at.batch)
        # One running sum from the epoch's first step on, so that where it is read does not change its bits.
        sums = torch.tensor([figures.loss_sum, figures.correct], dtype=torch.float64, device=self.device)
        clock = shown = time.perf_counter()
        for batch in prefetch(self._batches, self.device):
            waited_s = time.perf_counter() - clock
            self._tick()
            outcome = self._take(batch, sums)
            at.batch, at.step = at.batch + 1, at.step + 1
            now = time.perf_counter()
            figures.seconds, figures.waited_s, clock = figures.seconds + now - clock, figures.waited_s + waited_s, now
            last = at.batch == len(self.order) or at.step == self.plan.total_steps or at.out_of_time
            save = outcome.verdict in (StepVerdict.SAVE, StepVerdict.STOP)
            if last or save or outcome.retries or now - shown > SHOW_EVERY_S:
                # Reading the sums waits for the device, so it is not done at every step.
                figures.loss_sum, figures.correct = sums.tolist()
                self._faults.require_finite()
                peak, shown = self._peak.read_and_reset(), now
                figures.peak_bytes = max(figures.peak_bytes, peak)
                recorder.step(at.step, at.batch, figures, outcome, peak)
            if save:
                self._save()
            if outcome.verdict is StepVerdict.STOP:
                self._stop()
            if last:
                break

    def _take(self, batch: Batch, sums: torch.Tensor) -> StepResult:
        """One step, and what it adds to the figures and `sums`."""
        at, figures = self.at, self.figures
        self._faults.leave_out(batch.unreadable)
        self._faults.require_labels(batch)
        outcome = self.learner.take(batch, self.plan, at.step, at.factor, self._wish, self._schedule())
        figures.retries, figures.chunks = figures.retries + outcome.retries, outcome.chunks
        if outcome.verdict is StepVerdict.NOT_A_NUMBER:
            figures.skipped += 1
            self._faults.skipped(at.step, list(chain.from_iterable(self.world.all_gather_object(batch.indices))))
            return outcome
        if outcome.sums is not None:
            sums += outcome.sums
            self._faults.watch(at.step, batch, outcome.loss)
        figures.seen, figures.weight = figures.seen + len(batch.labels), figures.weight + outcome.weight
        return outcome

    def _tick(self) -> None:
        """See how late it is, where that matters: without a budget a run's course knows no clock."""
        if self.at.end_s is None:
            return
        self.at.elapsed_s = time.monotonic() - self._started
        if self.at.stepped_s is None:
            self.at.stepped_s = self.at.elapsed_s

    def _schedule(self) -> int:
        """The step by which rates go: with a time budget, that of an even pace from the first step to the last."""
        at = self.at
        if at.end_s is None or at.stepped_s is None:
            return at.step
        first = next(phase.first_epoch for phase in self.plan.phases if not (at.solved and phase.is_head_warmup))
        first *= self.plan.steps_per_epoch
        passed = (at.elapsed_s - at.stepped_s) / max(1e-9, at.end_s - at.stepped_s)
        return max(at.step, first + int(min(1.0, passed) * (self.plan.total_steps - first)))

    def _judge(self, phase: Phase, taken: Taken | None) -> None:
        """End the epoch: validate, keep it if it is the best, and move to the next."""
        at, recorder = self.at, self._recorder
        validation = taken.validation if taken else self.validation
        figures = Figures.of_all(self.world.all_gather_object(self.figures.as_dict()))
        self._faults.leave_out(list(chain.from_iterable(self.world.all_gather_object(self._faults.unreadable))))
        self._faults.name_lost_classes()
        if figures.skipped and not figures.seen:
            raise RunError(
                f"Steps with a finite loss were expected in epoch {at.epoch + 1}.",
                f"All {figures.skipped} were skipped.",
                f"Try a smaller rate (--lr {self.settings.lr / 10:g}) or --precision fp32.",
            )
        found: Answers | None = None
        if validation is not None:
            judged = self.learner.answering(taken.split_point if taken else None)
            scheduler = self.learner.micro.inference_scheduler
            found = answers(judged, validation, self.device, recorder.validating, scheduler, self.world)
            self._faults.leave_out(found.unreadable)
            self._faults.require_finite_validation(found.loss)
        else:
            self._faults.require_finite_weights(self.learner.judged)
        score = None if found is None else found.score(self.settings.monitor)
        better = at.judge(score, phase == self.plan.phases[-1], self.settings)
        if better and self.world.is_rank_zero:
            checkpoint.save({"model": self.learner.judged.state_dict(), "epoch": at.epoch + 1}, self.folder.best)
        recorder.end_epoch(
            {
                "epoch": at.epoch + 1,
                "phase": phase.name,
                "step": at.step,
                "train_loss": figures.loss,
                "train_accuracy": figures.accuracy,
                "val_loss": found.loss if found else None,
                "val_accuracy": found.accuracy if found else None,
                "images": figures.seen,
                "images_per_second": figures.images_per_second,
                "data_wait_share": figures.waited_s / max(1e-9, figures.seconds),
                "oom_retries": figures.retries,
                "skipped_steps": figures.skipped,
                "chunks": figures.chunks,
                "checkpointing": self.learner.micro.scheduler.checkpointing,
                "peak_memory_bytes": figures.peak_bytes,
                "seconds": figures.seconds,
                "best": better,
            }
        )
        if self.world.is_rank_zero:
            draw_curves(self.folder.history(), self.folder.curves)
            draw_memory(self.folder.memory_history(), self.folder.memory)
        self._tick()
        at.next_epoch(self.settings, self.plan.total_steps)
        self.figures = Figures()

    def _wish(self) -> StepVerdict:
        """What this rank votes for, besides that its step went well."""
        if self._interruption.received is not None:
            return StepVerdict.STOP
        due = time.monotonic() - self._saved_at > 60 * self.settings.save_minutes
        return StepVerdict.SAVE if due and self.world.is_rank_zero else StepVerdict.FINE

    def _save(self) -> StepVerdict:
        """Write a checkpoint of all ranks; STOP where one of them was told to stop by now."""
        ranks = self.world.all_gather_object({"figures": self.figures.as_dict(), "random": random_state(self.device)})
        if self.world.is_rank_zero:
            state = {
                "learner": self.learner.state(), "position": asdict(self.at), "ranks": ranks, "runners": self._backends,
            }  # fmt: skip
            checkpoint.save(state, self.folder.last, self.folder.previous)
        self._saved_at = time.monotonic()
        return StepVerdict(self.world.all_reduce_max(self._wish()))

    def _stop(self) -> None:
        signals = [self._interruption.received, *self.world.all_gather_object(self._interruption.received)]
        received = next(signal for signal in signals if signal is not None)
        self._recorder.event("interrupted", step=self.at.step, signal=received.name)
        error = RunInterruptedError(
            f"The run {self.folder.path} was to take {self.plan.total_steps:,} steps.",
            f"{received.name} stopped it after step {self.at.step:,}, and it is saved.",
            f"Go on with: lensmith train --resume {self.folder.path}",
        )
        error.exit_code = EXIT_CODES[received]
        raise error
