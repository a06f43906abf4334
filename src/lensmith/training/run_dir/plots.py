"""Plots of a run: loss and accuracy by epoch; memory and chunks by step."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_path
from lensmith.training.run_dir.run import Run


def draw_plots(run: Run) -> None:
    """Draw a run's curves.png and memory.png from its events; before the first epoch is over, no file.

    What prevents a plot, such as a full disk or matplotlib's settings, leaves the older one and is reported once: it is
    for checkpoints to end a run, not for pictures.
    """
    if history := run.history():
        try:
            draw_curves(history, run.curves)
            draw_memory(run.read_events("memory", "oom"), run.path / "memory.png")
        except Exception as error:
            _report(f"the plots of {run.path} cannot be drawn: {error}")


@cache
def _report(problem: str) -> None:
    print(problem, file=sys.stderr, flush=True)


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Plot loss and accuracy of epoch events as a PNG, and mark the unfreezing and the best epoch."""
    from matplotlib.figure import Figure

    epochs = [line["epoch"] for line in history]
    best = max((line["epoch"] for line in history if line["best"]), default=None)
    unfrozen = next((line["epoch"] for line in history if not line["phase"].startswith("head")), None)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [line[f"train_{quantity}"] for line in history], marker="o", ms=3, label="training")
        validation = [line[f"val_{quantity}"] for line in history]
        if None not in validation:
            axes.plot(epochs, validation, marker="o", ms=3, label="validation")
        if unfrozen is not None and unfrozen > epochs[0]:
            axes.axvline(unfrozen - 0.5, color="0.6", ls=":", lw=1, label="backbone unfrozen")
        if best is not None:
            axes.axvline(best, color="tab:green", ls="--", lw=1, label="best")
        axes.set(xlabel="epoch", title=quantity)
        if epochs[0] == epochs[-1]:  # around one epoch the axis would count in hundredths
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        _style(axes)
    axes.legend(frameon=False)
    with atomic_path(path, sync=False) as partial:
        figure.savefig(partial, dpi=110)


def draw_memory(events: list[dict[str, Any]], path: Path) -> None:
    """Plot `memory` and `oom` events as a PNG: memory and chunks by step, and retries; without any, no file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    points = [line for line in events if line["event"] == "memory"]
    if not points:
        return
    steps = [line["step"] for line in points]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    memory, chunks = figure.subplots(1, 2)
    memory.plot(steps, [line["peak_bytes"] / 1e9 for line in points], marker="o", ms=3)
    memory.set(title="memory in use, GB", ylim=(0, None))
    chunks.step(steps, [line["chunks"] for line in points], where="post", marker="o", ms=3, label="chunks")
    if checkpointed := [(line["step"], line["chunks"]) for line in points if line["checkpointing"]]:
        chunks.plot(
            *zip(*checkpointed, strict=True), ls="", marker="s", ms=5, color="tab:orange", label="with checkpointing"
        )
    for number, line in enumerate(line for line in events if line["event"] == "oom"):
        chunks.axvline(line["step"], color="tab:red", ls=":", lw=1, label=None if number else "out of memory, retried")
    chunks.set(title="chunks a step", ylim=(0, None))
    chunks.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (memory, chunks):
        axes.set_xlabel("step")
        _style(axes)
    chunks.legend(frameon=False)
    with atomic_path(path, sync=False) as partial:
        figure.savefig(partial, dpi=110)


def _style(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
