"""The loop over phases and epochs: each phase enters its inputs, each epoch takes its steps, validates and is saved."""

import time
from collections import Counter

import torch

from lensmith.core.machine import allowed_cores
from lensmith.training.checkpointing import Checkpointer
from lensmith.training.context import TrainingContext
from lensmith.training.data_errors import DataErrors
from lensmith.training.end_of_epoch import finish_epoch
from lensmith.training.epoch_steps import run_epoch
from lensmith.training.feature_source import FeatureSource, PhaseInputs, StoppedError
from lensmith.training.head_phase import solve_head, solves_head
from lensmith.training.learner import Learner
from lensmith.training.loaders import PartLoaders
from lensmith.training.microbatch import malloc, memory
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.distributed import World
from lensmith.training.microbatch.usage import read_and_reset_peak
from lensmith.training.models.backbone import Network
from lensmith.training.run_dir.progress import TrainingState
from lensmith.training.run_dir.recorder import Recorder
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import Phase, TrainingSchedule
from lensmith.training.signals import Interruption


class EpochLoop:
    """Trains a run's phases and epochs on one of its ranks.

    Attributes:
        cap_bytes: the memory cap of this process in bytes; None before the training, and where there is none.
    """

    def __init__(self, run: Run, network: Network, device: torch.device, world: World | None = None) -> None:
        world, settings, images = world or World(), run.settings, run.images
        training = images.part("train")
        counts = Counter(sample.label for sample in training)
        self.learner = Learner(network, settings, run.preprocessing, images.labels, counts, device, world)
        schedule = TrainingSchedule.of(settings, len(training), len(network.stages) - 1)
        recorder = Recorder(run.events if world.is_rank_zero else None, run.last_epoch, schedule.steps_per_epoch)
        self.context = TrainingContext(
            run, self.learner, schedule, TrainingState(), recorder, DataErrors(images, settings, recorder),
            Interruption(),
        )  # fmt: skip
        self.cap_bytes: int | None = None
        self.checkpointer = Checkpointer(self.context)
        self.loaders = PartLoaders(run, self.learner.inputs.augment, device, world)
        self.features = FeatureSource(self.context, self.loaders.order)

    def train_epochs(self) -> None:
        """Train to the end.

        Raises:
            RunInterruptedError: a signal asked the run to stop; it is saved.
            RunError: the loss is no longer a number, or memory is too small.
            DataError: no training image, or no validation image, can be read.
        """
        settings, world, context = self.context.run.settings, self.learner.world, self.context
        torch.set_num_threads(max(1, min(torch.get_num_threads(), allowed_cores() // world.local_size)))
        cap = memory.MemoryCap(self.learner.device, settings.memory_fraction, world.local_size)
        try:
            with context.interruption, context.recorder, cap:
                context.state.started = time.monotonic() - context.state.position.elapsed_s
                read_and_reset_peak(self.learner.device)
                self.cap_bytes = cap.bytes
                self._open(cap.bytes)
                self._train_phases()
                context.recorder.event("end", step=context.state.position.step)
        finally:
            self.loaders.close()
            malloc.restore_defaults()

    def _open(self, cap_bytes: int | None) -> None:
        """Record the start; in a new run also write the first checkpoint, and name what is trained on what."""
        recorder, position, learner = self.context.recorder, self.context.state.position, self.learner
        name, total_steps = "resume" if position.step else "start", self.context.schedule.total_steps
        recorder.event(name, step=position.step, total_steps=total_steps, ranks=learner.world.size, cap_bytes=cap_bytes)
        if learner.world.broadcast_object(self.context.run.has_checkpoint):
            return
        self.checkpointer.save()
        images, device = self.context.run.images, learner.device
        parts = ", ".join(f"{len(images.part(part)):,} {part}" for part in images.parts)
        where = f"{device}" if learner.world.size == 1 else f"{learner.world.size} × {device.type}"
        recorder.log(f"{self.context.run.settings.model} on {where}: {len(images.labels)} classes, {parts}")
        for note in images.remarks:
            recorder.log(note)

    def _train_phases(self) -> None:
        state, schedule = self.context.state, self.context.schedule
        phase: Phase | None = None
        inputs: PhaseInputs | None = None
        counted: set[int] = set()
        while not state.position.finished:
            if counted != (lost := self.context.data_errors.lost_images):
                counted = lost
                self._recount(lost)
            try:
                if phase != schedule.phase(state.position.epoch):
                    phase = schedule.phase(state.position.epoch)
                    inputs = self._enter(phase)
                if inputs is not None and solves_head(self.context, phase):
                    if not solve_head(self.context, phase, inputs, self.features):
                        phase = None  # entered anew, with exact features, or images where these find no room
                        continue
                else:
                    batches = inputs.training if inputs else self.loaders.training
                    run_epoch(self.context, self.checkpointer, self.loaders.order, phase, batches)
            except StoppedError:
                self.checkpointer.save()
                self.checkpointer.stop()
            validation = inputs.validation if inputs else self.loaders.validation
            finish_epoch(self.context, self.checkpointer, phase, validation, inputs.split_point if inputs else None)
            if inputs is not None and self._is_check_due(phase) and self.features.too_rounded(phase, inputs):
                phase = None
            if self.checkpointer.save() is StepVerdict.STOP:
                self.checkpointer.stop()

    def _recount(self, lost: set[int]) -> None:
        """Weight and draw the classes by the training images that are left, without those with the numbers `lost`."""
        training = self.context.run.images.part("train")
        left = Counter(sample.label for number, sample in enumerate(training) if number not in lost)
        self.learner.task.recount(left)
        self.loaders.order.leave_out(lost)

    def _is_check_due(self, phase: Phase) -> bool:
        """Whether more epochs of a phase follow, and 1, 2, 4, 8 … are done: what it learns may outgrow its features."""
        position = self.context.state.position
        done = position.epoch - phase.first_epoch
        goes_on = not position.finished and self.context.schedule.phase(position.epoch) == phase
        return goes_on and done & (done - 1) == 0

    def _enter(self, phase: Phase) -> PhaseInputs | None:
        """Begin a phase, on features if it can; None: on images."""
        inputs = self.features.inputs_for(phase)
        if inputs is None:
            self.loaders.decode_once(phase, self.features)
        precision = self.learner.enter(phase, inputs.split_point if inputs else None)
        self.context.recorder.event("phase", phase=phase.name, precision=precision)
        return inputs
