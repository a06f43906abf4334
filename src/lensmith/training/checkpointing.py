"""Checkpointing: when a run is saved or stopped, which all ranks vote on, and what a checkpoint holds.

A checkpoint is written before the first step, at the end of each epoch, every `save_minutes`, and when the run is to
stop; always at a step boundary, and at the same one on every rank.
"""

import sys
import time
from dataclasses import asdict
from typing import Any, NoReturn

from lensmith.errors import ModelError, RunError
from lensmith.training.context import TrainingContext
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.rng_state import random_state, set_random_state
from lensmith.training.models.state_dict import load_exactly
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.plots import draw_plots
from lensmith.training.run_dir.progress import Figures, Position
from lensmith.training.signals import RunInterruptedError
from lensmith.training.validate import ModelOutputs

PATHS, CORRECT = "paths", "correct"
"""In the best checkpoint under "validation": paths of N validation images, and whether the network classifies them
correctly, bool (N,)."""

LOGITS, MOST_LOGITS = "logits", 2**20
"""Beside them the logits, float32 (N, C), if these are at most so many numbers, or those of a fold."""


class Checkpointer:
    """Writes a training's checkpoints, and continues from one."""

    def __init__(self, context: TrainingContext) -> None:
        self.context, self.run = context, context.run
        self.world, self.device = context.learner.world, context.learner.device
        self._saved_at = time.monotonic()

    def vote(self) -> StepVerdict:
        """Vote of this rank after a good step: STOP once a signal has arrived, SAVE where a checkpoint is due."""
        if self.context.interruption.received is not None:
            return StepVerdict.STOP
        due = time.monotonic() - self._saved_at > 60 * self.run.settings.save_minutes
        return StepVerdict.SAVE if due and self.world.is_rank_zero else StepVerdict.FINE

    def save(self) -> StepVerdict:
        """Write a checkpoint of all ranks; returns STOP where one of them was asked to stop by now."""
        state = self.context.state
        ranks = self.world.all_gather_object({"figures": asdict(state.figures), "random": random_state(self.device)})
        if self.world.is_rank_zero:
            content = {
                "learner": self.context.learner.state(), "position": asdict(state.position), "ranks": ranks,
                "runners": state.engines, "exact": sorted(state.exact),
            }  # fmt: skip
            checkpoint.save(content, self.run.last, self.run.checkpoints / checkpoint.PREVIOUS)
        self._saved_at = time.monotonic()
        return StepVerdict(self.world.all_reduce_max(self.vote()))

    def save_best(self, validation: ModelOutputs | None) -> None:
        """Write the evaluated network as that of the best epoch, and which validation images it classifies correctly.

        Args:
            validation: the network's outputs for the validation part; None: it is empty.
        """
        if self.world.is_rank_zero:
            model = self.context.learner.evaluated_model.state_dict()
            content: dict[str, Any] = {"model": model, "epoch": self.context.state.position.epoch + 1}
            if validation is not None:
                samples = self.run.images.part("val")
                content["validation"] = {
                    PATHS: [samples[index].path for index in validation.indices],
                    CORRECT: validation.logits.argmax(1) == validation.labels,
                }
                if self.run.fold is not None or validation.logits.numel() <= MOST_LOGITS:
                    content["validation"][LOGITS] = validation.logits
            checkpoint.save(content, self.run.best)

    def stop(self) -> NoReturn:
        """End the training, which is saved.

        Raises:
            RunInterruptedError: always; its exit code is that of the signal.
        """
        own, step = self.context.interruption.received, self.context.state.position.step
        received = next(signal for signal in [own, *self.world.all_gather_object(own)] if signal is not None)
        self.context.recorder.event("interrupted", step=step, signal=received.name)
        if self.world.is_rank_zero:
            draw_plots(self.run)
        raise RunInterruptedError.by(
            received,
            f"The run {self.run.path} was to take {self.context.schedule.total_steps:,} steps.",
            f"{received.name} stopped it after step {step:,}, and it is saved.",
            f"Resume it with: lensmith train --resume {self.run.path}",
        )

    def restore(self) -> None:
        """Continue from the newest whole checkpoint.

        Raises:
            RunError: there is no whole checkpoint, or it is of another architecture or optimizer.
        """
        run = self.run
        fell_back = self.world.on_rank_zero(
            lambda: checkpoint.recover(run.checkpoints, f"Start the run anew: {run.start_command()}")
        )
        content = checkpoint.load(run.last)
        try:
            load_exactly(self.context.learner.model, content["learner"]["model"], f"the checkpoint {run.last}")
            self._restore(content)
        except (ModelError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if memory.is_out_of_memory(error):
                raise
            arrived = error.arrived if isinstance(error, ModelError) else f"It does not fit ({error})."
            raise RunError(
                f"A checkpoint of this run's {run.settings.model} was expected at {run.last}.",
                arrived,
                f"Put back the run's own checkpoints and {run.path / 'run.json'}, or train anew into another folder.",
            ) from error
        if fell_back and self.world.is_rank_zero:
            print(f"{fell_back}: resuming from the checkpoint before it", file=sys.stderr, flush=True)
            run.record("fell_back", reason=fell_back, step=self.context.state.position.step)

    def _restore(self, content: dict[str, Any]) -> None:
        state, ranks = self.context.state, content["ranks"]
        self.context.learner.restore(content["learner"])
        state.position = Position(**content["position"])
        self.context.schedule.head_solved = state.position.solved
        state.engines.update(content["runners"])
        state.exact.update(content.get("exact", ()))  # those of earlier versions have none
        if len(ranks) == self.world.size:
            own = ranks[self.world.rank]
            state.figures = Figures(**own["figures"])
            set_random_state(own["random"], self.device)
        elif self.world.is_rank_zero:  # more ranks or fewer than before: one of them takes over what was counted
            state.figures = Figures.of_all([rank["figures"] for rank in ranks])
