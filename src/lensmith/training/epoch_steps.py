"""The steps of an epoch: each batch is loaded, learned from and counted, until the epoch, the time or the run ends."""

import time
from collections.abc import Callable
from itertools import chain

import torch

from lensmith.training.checkpointing import Checkpointer
from lensmith.training.context import TrainingContext
from lensmith.training.dataloading.dataset import Batch, Batches
from lensmith.training.dataloading.prefetch import prefetch
from lensmith.training.dataloading.sampler import EpochSampler
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.microbatch import StepResult
from lensmith.training.microbatch.usage import read_and_reset_peak
from lensmith.training.schedule import Phase

SHOW_EVERY_S = 0.25
"""Seconds between two updates of the progress bar."""


def run_epoch(
    context: TrainingContext, checkpointer: Checkpointer, order: EpochSampler, phase: Phase, batches: Batches
) -> None:
    """Take the rest of the epoch's steps, on the phase's batches of images or features in the order of `order`.

    Raises:
        RunInterruptedError: a signal asked the run to stop; it is saved.
        RunError: the loss is no longer a number, or memory is too small.
    """
    device, position, figures = context.learner.device, context.state.position, context.state.figures
    total_steps = context.schedule.total_steps
    if position.step >= total_steps:  # stopped at the very last one
        return
    order.epoch, order.skip, order.size = position.epoch, position.batch, phase.image_size
    context.recorder.begin_epoch(position.epoch, phase.name, position.batch)
    # One running sum from the epoch's first step on, so that where it is read does not change its bits.
    sums = torch.tensor([figures.loss_sum, figures.correct], dtype=torch.float64, device=device)
    clock = shown = time.perf_counter()
    for batch in prefetch(batches, device):
        waited_s = time.perf_counter() - clock
        context.state.tick()
        outcome = _step(context, batch, sums, checkpointer.vote)
        position.batch, position.step = position.batch + 1, position.step + 1
        now = time.perf_counter()
        figures.seconds, figures.waited_s, clock = figures.seconds + now - clock, figures.waited_s + waited_s, now
        last = position.batch == len(order) or position.step == total_steps or position.out_of_time
        save = outcome.verdict in (StepVerdict.SAVE, StepVerdict.STOP)
        if last or save or outcome.retries or now - shown > SHOW_EVERY_S:
            # Reading the sums waits for the device, so it is not done at every step.
            figures.loss_sum, figures.correct = sums.tolist()
            context.data_errors.require_finite()
            peak_bytes, shown = read_and_reset_peak(device), now
            figures.peak_bytes = max(figures.peak_bytes, peak_bytes)
            context.recorder.step(position.step, position.batch, figures, outcome, peak_bytes)
        if save:
            checkpointer.save()
        if outcome.verdict is StepVerdict.STOP:
            checkpointer.stop()
        if last:
            break


def _step(context: TrainingContext, batch: Batch, sums: torch.Tensor, vote: Callable[[], StepVerdict]) -> StepResult:
    """Take one step, and add what it counted to the figures and to `sums`, float64 (2,)."""
    learner, errors = context.learner, context.data_errors
    position, figures = context.state.position, context.state.figures
    errors.leave_out(batch.unreadable)
    share = position.time_share
    # With a time budget rates follow an even pace from the first step to the last, but never lag behind the steps.
    rate_step = position.step if share is None else max(position.step, context.schedule.step_at(share))
    outcome = learner.training_step(batch, context.schedule, position.step, position.factor, vote, rate_step)
    figures.retries, figures.chunks = figures.retries + outcome.retries, outcome.chunks
    if outcome.verdict is StepVerdict.NOT_A_NUMBER:
        figures.skipped += 1
        errors.skipped(position.step, list(chain.from_iterable(learner.world.all_gather_object(batch.indices))))
        return outcome
    if outcome.sums is not None:
        sums += outcome.sums
        errors.watch(position.step, batch, outcome.loss)
    figures.seen, figures.weight = figures.seen + len(batch.labels), figures.weight + outcome.weight
    return outcome
