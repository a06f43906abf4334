"""The result of a finished run, read from its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lensmith.core.result import plain
from lensmith.errors import RunError
from lensmith.training.run_dir.run import Run


@dataclass(frozen=True)
class RunResult:
    """Figures of a finished run.

    Attributes:
        run: the run folder.
        best_epoch: the best epoch, 1-based.
        epochs: number of epochs; a head that was solved for counts for all epochs of its phase.
        steps: number of optimizer steps.
        metrics: val_loss and val_accuracy of the best epoch; None where there was nothing to validate on.
        images_per_second: training throughput over all epochs.
        data_wait_share: share of the training time spent waiting for data, 0..1.
        oom_retries: number of out-of-memory retries.
        chunks: number of chunks of a step's batch at the end.
        checkpointing: whether activation checkpointing was on at the end.
        peak_memory_bytes: the most memory that a rank used: reserved on a GPU, resident on a CPU.
    """

    run: Run
    best_epoch: int
    epochs: int
    steps: int
    metrics: dict[str, float | None]
    images_per_second: float
    data_wait_share: float
    oom_retries: int
    chunks: int
    checkpointing: bool
    peak_memory_bytes: int

    @classmethod
    def read(cls, run: Run) -> RunResult:
        """Sum up a run's events.

        Raises:
            RunError: the events name no epoch, or not the best one.
        """
        history = run.history()
        best = next((line for line in reversed(history) if line["best"]), None)
        if best is None:
            raise RunError(
                f"The epochs of a finished run were expected in {run.events}.",
                "The best one is missing." if history else "There is none.",
                f"Put the file back, or export what was trained: lensmith export {run.path}",
            )
        last = history[-1]
        seconds = max(1e-9, sum(line["seconds"] for line in history))
        waited_s = sum(line["data_wait_share"] * line["seconds"] for line in history)
        return cls(
            run=run,
            best_epoch=best["epoch"],
            epochs=last["epoch"],
            steps=last["step"],
            metrics={"val_loss": best["val_loss"], "val_accuracy": best["val_accuracy"]},
            images_per_second=sum(line["images"] for line in history) / seconds,
            data_wait_share=waited_s / seconds,
            oom_retries=sum(line["oom_retries"] for line in history),
            chunks=last["chunks"],
            checkpointing=last["checkpointing"],
            peak_memory_bytes=max(line["peak_memory_bytes"] for line in history),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the run is its path, and `left_out` the number of files without a part in it."""
        images, left_out = self.run.images, len(self.run.left_out())
        return {
            **vars(self),
            "run": str(self.run.path),
            "left_out": left_out,
            "contested": plain(images.contested),
            "notes": images.remarks,
        }
