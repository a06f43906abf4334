"""Early stopping: validation scores decide which epoch is the best, when rates fall, and when the run ends."""

from lensmith.config import TrainSettings
from lensmith.training.run_dir.progress import Position


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


def next_epoch(position: Position, settings: TrainSettings, total_steps: int) -> None:
    """Move to the next epoch, or end the run: by early stopping, or after its last epoch, step or second."""
    position.epoch, position.batch = position.epoch + 1, 0
    stops_early = position.stale >= settings.patience
    position.finished = (
        stops_early or position.out_of_time or position.epoch >= settings.epochs or position.step >= total_steps
    )
