"""A head phase without steps: the head is solved for in closed form, or by L-BFGS, on features of a frozen backbone."""

import time
from collections import Counter

import torch

from lensmith.training.context import TrainingContext
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.feature_source import FeatureSource, PhaseInputs, StoppedError
from lensmith.training.linear_probe.fit import LinearProbe, can_solve, fit_linear_probe
from lensmith.training.linear_probe.self_training import Solve, self_train
from lensmith.training.loss import Task, task_of
from lensmith.training.run_dir.progress import Figures
from lensmith.training.run_dir.run import PSEUDO_LABELS
from lensmith.training.schedule import Phase
from lensmith.training.unlabelled import write_pseudo_labels


def solves_head(context: TrainingContext, phase: Phase) -> bool:
    """Whether one solution replaces all of the phase's epochs; not where the phase has started with steps."""
    position = context.state.position
    fresh = position.epoch == phase.first_epoch and not position.batch
    return phase.trainable == 0 and fresh and can_solve(context.learner.network.head, context.run.settings)


def solve_head(context: TrainingContext, phase: Phase, inputs: PhaseInputs, source: FeatureSource) -> bool:
    """Solve for the head in the place of all epochs of its phase; afterwards its last epoch is the current one.

    Args:
        context: the training.
        phase: the phase of the head alone.
        inputs: the features that it learns from.
        source: where they are from.

    Returns:
        Whether they are exact enough for this head; where they are not, the phase is to be entered anew.

    Raises:
        StoppedError: a signal asked the run to stop.
        DataError: not one training image can be read.
    """
    started = time.perf_counter()
    learner, images, state, schedule = context.learner, context.run.images, context.state, context.schedule
    labels, validation_labels = (torch.tensor([one.label for one in images.part(part)]) for part in ("train", "val"))
    unreadable = {row for rows in inputs.views for row in rows.unreadable.items()}
    context.data_errors.leave_out([(images.part("train")[row].path, reason) for row, reason in sorted(unreadable)])
    context.data_errors.name_lost_classes()
    validation = None if inputs.validation_rows is None else (inputs.validation_rows, validation_labels)

    def watch(done: int, total: int) -> None:
        context.recorder.working("head", done, total)
        if context.interruption.received is not None and learner.world.size == 1:
            raise StoppedError

    counts = Counter(
        sample.label for row, sample in enumerate(images.part("train"))
        if any(row not in rows.unreadable for rows in inputs.views)
    )  # fmt: skip

    def solve(views: list[Features], labels: torch.Tensor) -> LinearProbe:
        """The head for features of each view and labels, int64 (N,)."""
        return fit_linear_probe(
            views, labels, len(images.labels), validation, _task(context, counts), context.run.settings, learner.device,
            watch, None if context.run.refit is None else context.run.refit.head,
        )  # fmt: skip

    def solved() -> LinearProbe:
        probe = solve(inputs.views, labels)
        if context.run.settings.unlabelled is None:
            return probe
        return _learn_from_unlabelled(context, inputs, probe, labels, solve)

    chosen = learner.world.on_rank_zero(solved)
    learner.put_head(chosen.head)
    if source.too_rounded(phase, inputs):
        return False
    seconds = time.perf_counter() - started
    context.recorder.event(
        "head",
        way=chosen.head.name,
        strength=chosen.head.strength,
        tried=chosen.tried,
        seconds=seconds,
        temperature=chosen.temperature,
    )
    position = state.position
    position.solved = schedule.head_solved = True
    position.epoch, position.batch = phase.end_epoch - 1, 0
    position.step = min(schedule.total_steps, phase.end_epoch * schedule.steps_per_epoch)
    if learner.world.is_rank_zero:
        state.figures = Figures(chosen.seen, chosen.weight, chosen.loss_sum, chosen.correct, seconds + inputs.seconds)
    return True


def _learn_from_unlabelled(
    context: TrainingContext, inputs: PhaseInputs, probe: LinearProbe, labels: torch.Tensor, solve: Solve
) -> LinearProbe:
    """The better of a solved head and of one that learnt from pseudo-labels, too; see `self_training`.

    What was found is recorded; the pseudo-labels of a head that is kept are written into the run folder.

    Args:
        context: the training.
        inputs: features of the phase.
        probe: the head that learnt from labelled images alone.
        labels: int64 (N,), class indices of the training part.
        solve: solver, with the settings of the run.
    """
    run, file = context.run, context.run.path / PSEUDO_LABELS
    file.unlink(missing_ok=True)
    if inputs.unlabelled is None:
        context.recorder.log(f"self-training: no picture in {run.settings.unlabelled} is new to the run")
        return probe
    if inputs.validation_rows is None:
        context.recorder.log("self-training: there are no validation images to show whether it helps")
        return probe
    images, features = inputs.unlabelled
    validation = inputs.validation_rows, torch.tensor([sample.label for sample in run.images.part("val")])
    found = self_train(probe, inputs.views, labels, validation, features, run.settings.monitor, solve)
    context.recorder.event(
        "self_training", pictures=len(images.samples), used=len(found.rows), kept=found.kept, gain=found.gain,
        error=found.error,
    )  # fmt: skip
    monitor = run.settings.monitor
    other = (
        "" if monitor == "loss" else f", {monitor.replace('_', ' ')} {found.score_before:.3f} → {found.score_after:.3f}"
    )
    changed = f"validation loss {-found.gain:+.3f} ± {found.error:.3f}{other}"
    outcome = "the head that learnt from them is kept" if found.kept else "the head without them is kept"
    context.recorder.log(
        f"self-training: {len(found.rows):,} of {len(images.samples):,} unlabelled pictures got a label; {changed}: "
        f"{outcome}"
    )
    if found.kept:
        write_pseudo_labels(run, images, found)
    return found.probe


def _task(context: TrainingContext, counts: Counter[int]) -> Task:
    """The loss to solve with, for these training images by class; balanced draws become balanced class weights."""
    run, learner = context.run, context.learner
    if run.settings.sampling == "shuffle" and run.settings.class_weights == "none":
        return learner.task
    balanced = run.settings.model_copy(update={"sampling": "shuffle", "class_weights": "balanced"})
    return task_of(balanced, run.images.labels, counts, learner.device, learner.network)
