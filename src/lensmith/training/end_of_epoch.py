"""The end of an epoch: validation, the best checkpoint, early stopping, and the epoch's line and plots."""

import time
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from lensmith.config import TrainSettings
from lensmith.errors import RunError
from lensmith.training.checkpointing import Checkpointer
from lensmith.training.context import TrainingContext
from lensmith.training.dataloading.dataset import Batches
from lensmith.training.divergence import divergence_message, has_diverged, update_divergence, useless_message
from lensmith.training.feature_cache.split_model import SplitPoint
from lensmith.training.run_dir.plots import draw_plots
from lensmith.training.run_dir.progress import Figures, Position
from lensmith.training.schedule import Phase
from lensmith.training.validate import ModelOutputs, compute_outputs

PLOT_AFTER_S = 10.0
"""Seconds after which an epoch draws the plots anew, which takes longer than a short epoch; a run's end always does."""


def finish_epoch(
    context: TrainingContext,
    checkpointer: Checkpointer,
    phase: Phase,
    validation: Batches | None,
    split_point: SplitPoint | None,
) -> None:
    """Validate, save the epoch if it is the best, record it, and move to the next.

    Args:
        context: the training.
        checkpointer: the training's checkpoints.
        phase: the current phase.
        validation: the validation part, as images or features; None: it is empty.
        split_point: the split point where the features enter; None: `validation` has images.

    Raises:
        DataError: not one training image, or not one validation image, can be read.
        RunError: the loss is not a number.
    """
    learner, state, errors = context.learner, context.state, context.data_errors
    position, world = state.position, learner.world
    figures = Figures.of_all(world.all_gather_object(asdict(state.figures)))
    errors.leave_out(list(chain.from_iterable(world.all_gather_object(errors.unreadable))))
    errors.name_lost_classes()
    if figures.skipped and not figures.seen:
        raise RunError(
            f"Steps with a finite loss were expected in epoch {position.epoch + 1}.",
            f"All {figures.skipped} were skipped.",
            f"Try a smaller rate (--lr {context.run.settings.lr / 10:g}) or --precision fp32.",
        )
    found = None if validation is None else _validate(context, validation, split_point)
    if found is None:
        errors.require_finite_weights(learner.evaluated_model)
    settings = context.run.settings
    score = None if found is None else found.score(settings.monitor)
    worse = update_divergence(position, phase, found, figures.loss, len(context.run.images.labels))
    best = update_best(position, score, phase == context.schedule.phases[-1], settings)
    best = best and not (worse and found is None)  # else every epoch counts as the best without a validation part
    if best:
        position.best_epoch, position.best_loss = position.epoch + 1, found.loss if found else figures.loss
        position.best_accuracy = found.accuracy if found else None
        checkpointer.save_best(found)
    context.recorder.end_epoch(
        {
            "epoch": position.epoch + 1,
            "phase": phase.name,
            "step": position.step,
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
            "checkpointing": learner.micro.scheduler.checkpointing,
            "peak_memory_bytes": figures.peak_bytes,
            "seconds": figures.seconds,
            "best": best,
        }
    )
    state.tick()
    if has_diverged(position):
        context.recorder.event("diverged", phase=phase.name, epochs=position.worse, kept_epoch=position.best_epoch)
        context.recorder.log(divergence_message(position, phase, settings.lr))
    next_epoch(position, settings, context.schedule.total_steps, context.run.last_epoch)
    if position.finished and 0 < phase.first_epoch >= (position.best_epoch or 0) and not has_diverged(position):
        earlier = f"no epoch of the phase {phase.name!r} was better than epoch {position.best_epoch} before it"
        context.recorder.log(f"{earlier}, whose network is kept")
    if position.finished and (useless := useless_message(position, len(context.run.images.labels), settings.lr)):
        context.recorder.event("useless", epoch=position.best_epoch)
        context.recorder.log(useless)
    state.figures = Figures()
    if world.is_rank_zero and (position.finished or _is_outdated(context.run.curves)):
        draw_plots(context.run)


def update_best(position: Position, score: float | None, in_last_phase: bool, settings: TrainSettings) -> bool:
    """Take an epoch's validation score into account; returns whether the epoch is the best so far.

    With `schedule: plateau` the rates fall once the score has not improved for `plateau_patience` epochs.

    Args:
        position: the run's position, whose counters are updated.
        score: the epoch's score, more is better; None: nothing to validate on, so each epoch counts as the best.
        in_last_phase: whether the current phase is the last; only its epochs use up the patience.
        settings: the run's settings.
    """
    if score is None or position.best_score is None or score > position.best_score:
        position.best_score, position.stale, position.flat = score, 0, 0
        return True
    position.stale += in_last_phase
    position.flat += 1
    if settings.schedule == "plateau" and position.flat >= settings.plateau_patience:
        position.factor, position.flat = position.factor * settings.plateau_factor, 0
    return False


def next_epoch(position: Position, settings: TrainSettings, total_steps: int, last_epoch: int) -> None:
    """Move to the next epoch, or end the run: early, by divergence, or after its last epoch, step or second."""
    position.epoch, position.batch = position.epoch + 1, 0
    stops_early = position.stale >= settings.patience
    ends = position.epoch >= last_epoch or position.step >= total_steps
    position.finished = stops_early or has_diverged(position) or position.out_of_time or ends


def _is_outdated(plot: Path) -> bool:
    return not plot.exists() or time.time() - plot.stat().st_mtime > PLOT_AFTER_S


def _validate(context: TrainingContext, batches: Batches, split_point: SplitPoint | None) -> ModelOutputs:
    learner, errors = context.learner, context.data_errors
    model, scheduler = learner.validation_model(split_point), learner.micro.inference_scheduler
    found = compute_outputs(model, batches, learner.device, context.recorder.validating, scheduler, learner.world)
    errors.leave_out(found.unreadable)
    errors.require_finite_validation(found.loss)
    return found
