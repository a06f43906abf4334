"""Divergence: fine-tuning that makes the network much worse than it was when the phase began, and is stopped.

An epoch is much worse where it has lost more than half of what the network knew beyond guessing, and more than chance
can explain; or where its loss has risen by more than guessing would cost twice over. Epochs that are worse by less may
recover, and early stopping waits for them.
"""

import math

from lensmith.training.run_dir.progress import Position
from lensmith.training.schedule import Phase
from lensmith.training.validate import ModelOutputs

PATIENCE = 2
"""Much worse epochs in a row, after which a phase is given up; one alone may be the warm-up's."""

DEVIATIONS = 2.0
"""Standard deviations of the difference of two accuracies, up to which it counts as chance."""


def update_divergence(
    position: Position, phase: Phase, found: ModelOutputs | None, train_loss: float, classes: int
) -> bool:
    """Take an epoch into account, before `update_best` does; returns whether it is much worse than its phase's start.

    A phase starts from the best epoch before it; the first phase has nothing to lose, and never diverges.

    Args:
        position: the run's position, whose counters are updated.
        phase: the current phase.
        found: the epoch's answers to the validation part; None: there is none, and the training loss decides.
        train_loss: the epoch's mean training loss.
        classes: number of classes C.
    """
    if position.epoch == phase.first_epoch:
        position.began_accuracy, position.began_loss, position.worse = position.best_accuracy, position.best_loss, 0
    if position.began_loss is None or phase.is_head_warmup:
        return False
    loss = train_loss if found is None else found.loss
    worse = loss > position.began_loss + 2 * math.log(classes)
    if found is not None and position.began_accuracy is not None:
        before, now, images = position.began_accuracy, found.accuracy, len(found.labels)
        lost_half = now < (before + 1 / classes) / 2
        by_chance = DEVIATIONS * math.sqrt(_variance(before, images) + _variance(now, images))
        worse = (worse and now <= before) or (lost_half and before - now > by_chance)
    position.worse = position.worse + 1 if worse else 0
    return worse


def has_diverged(position: Position) -> bool:
    """Whether the current phase is to be given up."""
    return position.worse >= PATIENCE


def divergence_message(position: Position, phase: Phase, lr: float) -> str:
    """The message when a phase is given up.

    Args:
        position: the position at the last of the worse epochs.
        phase: the current phase.
        lr: the run's peak learning rate.
    """
    kept = f"The network of epoch {position.best_epoch} is kept, which was the best."
    return (
        f"stopped: for {position.worse} epochs the phase {phase.name!r} has left the network much worse than it was "
        f"before. {kept} A smaller rate may help: --lr {lr / 10:g}"
    )


def useless_message(position: Position, classes: int, lr: float) -> str:
    """The message at the end of a run whose best epoch is no better than guessing; empty where it is better.

    Args:
        position: the position after the last epoch.
        classes: number of classes C.
        lr: the run's peak learning rate.
    """
    loss, accuracy, guess = position.best_loss, position.best_accuracy, math.log(classes)
    if loss is None or accuracy is None or loss <= 2 * guess or accuracy > 1 / classes + 1e-6:
        return ""
    return (
        f"no epoch was better than guessing, which costs a loss of {guess:.3g}: the best, epoch {position.best_epoch}, "
        f"has {loss:.3g} and an accuracy of {accuracy:.4f}. A smaller rate may help: --lr {lr / 10:g}"
    )


def _variance(accuracy: float, images: int) -> float:
    """Variance of an accuracy measured on so many images; Laplace's rule keeps it above 0 where all are correct."""
    share = (accuracy * images + 1) / (images + 2)
    return share * (1 - share) / images
