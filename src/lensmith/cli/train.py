"""`lensmith train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import is_first_rank, print_line
from lensmith.config import TrainSettings

if TYPE_CHECKING:
    from lensmith.evaluation.cross_validation import CrossValidation
    from lensmith.tracking.sidecar import TrackingStatus
    from lensmith.workflows.train_and_export import Trained


Recipe = Annotated[Path | None, typer.Option(metavar="PATH", help="YAML file of settings; flags override it.")]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|auto",
        help="Resume this run folder with its settings; auto: resume the run of this command line, or start it.",
    ),
]


def train(given: dict[str, Any], *, recipe: Recipe = None, resume: Resume = None) -> Output:
    """Fine-tune a pretrained backbone on labelled images, and export the best epoch as a bundle.

    `--time-budget 20m` chooses image size, stages and epochs so that the bundle is ready in time. Ctrl-C saves and
    exits with 130, SIGTERM with 75; `--resume RUN` continues exactly there. On a machine that may be taken away, run
    the same line with `--out RUN --resume auto` each time.
    """
    try:
        trained = api.train(given.pop("data", None), recipe=recipe, resume=resume, **given)
    finally:
        leave()
    if is_first_rank():
        yield trained
        print_trained(trained)


def print_trained(trained: Trained) -> None:
    """Print a finished run in a few lines."""
    result, parity = trained.result, trained.parity
    accuracy = result.metrics["val_accuracy"]
    validation = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
    if trained.already:
        print_line(f"\nThe run {trained.run} is finished and exported; there is nothing to do.")
    print_line((f"\n{trained.bundle}", "bold"))
    if (found := trained.cross_validation) is not None:
        _print_cross_validation(found)
        print_line(f"  epochs: {result.epochs}, as the folds chose; curves in {result.run.curves}")
    else:
        print_line(f"  best epoch {result.best_epoch} of {result.epochs}{validation}; curves in {result.run.curves}")
    print_line(f"  the graph agrees with PyTorch on {parity.agreement:.2%} of {parity.images:,} images")
    waited = f"{result.data_wait_share:.0%} of the time waiting for data"
    print_line(f"  {trained.seconds:,.0f} s, {result.images_per_second:,.0f} training images a second, {waited}")
    if result.oom_retries:
        how = " and activation checkpointing" if result.checkpointing else ""
        print_line(f"  memory ran out {result.oom_retries}×; the batches went through in {result.chunks} chunks{how}")
    if trained.tracked is not None:
        _print_tracking(trained, trained.tracked)
    print_line(f"\nNext: lensmith serve {trained.bundle}")


def _print_cross_validation(found: CrossValidation) -> None:
    low, high = found.accuracy_interval
    groups = f" in {found.groups:,} groups" if found.groups < found.images else ""
    accuracies = [each.accuracy for each in found.folds]
    print_line(
        f"  cross-validated accuracy {found.accuracy:.4f}, 95 % interval {low:.4f} to {high:.4f}, on {found.images:,} "
        f"images{groups}"
    )
    if found.monitor != "accuracy":
        words, value, (least, most) = found.monitored
        print_line(f"  cross-validated {words} {value:.4f}, 95 % interval {least:.4f} to {most:.4f}")
    print_line(
        f"  the {len(found.folds)} folds: {min(accuracies):.4f} to {max(accuracies):.4f}, standard deviation "
        f"{found.accuracy_spread:.4f}; these are figures of their models, the bundle's learnt from all images"
    )


def _print_tracking(trained: Trained, tracked: TrackingStatus) -> None:
    run = f"run {tracked.run_id}" if tracked.run_id else f"run {trained.run.name}"
    if tracked.complete:
        print_line(f"  tracked as {run} at {tracked.uri}")
        return
    state = "is still being sent" if tracked.problem is None else f"has not all arrived ({tracked.problem.rstrip('.')})"
    print_line(f"  {run} {state} at {tracked.uri}; what is missing is sent by: lensmith track sync {trained.run}")


def leave() -> None:
    """Leave the process group of torchrun; a rank that ends while the group's threads work may crash."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


command = command_for(TrainSettings, train, optional=("data",))
