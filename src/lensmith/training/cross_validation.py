"""Cross-validation of a training: a run for each fold, then one on all images with what the folds have chosen.

RUN/folds/N      the run of fold N: the fold validates, the others train; its checkpoints go once it is finished
RUN              learns from all images, for the median of the folds' best epochs, by the schedule that the folds had

A finished fold is not trained again, so an interrupted cross-validation resumes in the fold where it stopped.
"""

import math
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensmith.config import TrainSettings
from lensmith.core.files import atomic_path
from lensmith.data.folds import with_validation_fold
from lensmith.errors import RunError, SettingsError
from lensmith.evaluation.cross_validation import CrossValidation, OutOfFold
from lensmith.imaging.preprocessing import Tensor
from lensmith.training.checkpointing import LOGITS, PATHS
from lensmith.training.linear_probe.lbfgs import STRENGTHS
from lensmith.training.microbatch.distributed import World
from lensmith.training.result import RunResult
from lensmith.training.run_dir import checkpoint, diff
from lensmith.training.run_dir.description import DESCRIPTION
from lensmith.training.run_dir.lock import locked_run
from lensmith.training.run_dir.refit import HeadChoice, Refit
from lensmith.training.run_dir.run import Run
from lensmith.training.signals import RunInterruptedError, signal_of
from lensmith.training.trainer import Trainer, create_run

PREDICTIONS = "predictions.npz"
"""In the folder of a finished fold: `rows` int64 (N,) of its validation part, and `logits` float32 (N, C)."""


class CrossValidator:
    """Trains the folds of a cross-validation and the model on all images: `start` anew, `resume` where it stopped.

    Args:
        on_begin: called with the run on all images, once its folder is locked and before it is trained.
    """

    def __init__(self, on_begin: Callable[[Run], None] = lambda run: None) -> None:
        self.on_begin = on_begin

    def start(self, settings: TrainSettings) -> RunResult:
        """Make a new run folder, and train the folds and the model on all images.

        Raises:
            DataError: the images cannot be trained on, or no such folds can be made of them.
            ModelError: the backbone or its weights are not available.
            OutputError: the run folder is in use.
            RunInterruptedError: Ctrl-C or SIGTERM; the run is saved.
            SettingsError: several processes were started from outside.
        """
        _require_one_process()
        run, _ = create_run(settings)
        try:
            return self._run(run)
        except BaseException:
            if not _has_begun(run):  # it can be neither resumed nor used again
                shutil.rmtree(run.path, ignore_errors=True)
            raise

    def resume(self, path: Path, given: Mapping[str, Any] | None = None) -> RunResult:
        """Continue a cross-validation in the fold where it stopped; finished folds are not trained again.

        Args:
            path: the run folder.
            given: settings by name that must be the run's; those of `diff.MAY_CHANGE` take effect instead.

        Raises:
            RunError: no such run, another process that trains it, or settings, classes, images or folds that have
                changed since.
            RunInterruptedError: Ctrl-C or SIGTERM; the run is saved.
        """
        _require_one_process()
        opened = Run.open(path)
        if opened.fold is not None:
            whole = path.resolve().parent.parent
            raise RunError(
                f"A run was expected at {path} that can be resumed by itself.",
                f"It is one fold of the cross-validation {whole}.",
                f"Resume the whole: lensmith train --resume {whole}",
            )
        return self._run(diff.with_changes(opened, given or {}))

    def _run(self, run: Run) -> RunResult:
        with _resumed_as_whole(run):
            run = self._train(run)
        return RunResult.read(run)

    def _train(self, run: Run) -> Run:
        """Train what is left to be trained; returns the run with what the folds chose."""
        if run.refit is None:
            run.folds.mkdir(exist_ok=True)
            with locked_run(run.folds):
                for fold in range(_folds(run)):
                    _train_fold(run, fold)
            run = run.with_refit(_chosen(run))
            figures = cross_validated(run)
            run.record("cross_validated", **figures.as_dict())
            print(summary(figures), file=sys.stderr, flush=True)
            epochs = f"{run.last_epoch} epoch{'s' * (run.last_epoch > 1)}"
            print(f"all {figures.images:,} images: {epochs}, as the folds chose", file=sys.stderr, flush=True)
        Trainer(self.on_begin).run_locked(run)
        return run


def out_of_fold(run: Run) -> tuple[OutOfFold, list[Path]]:
    """The out-of-fold answers of a cross-validation, and the files of their images, in the same order.

    Raises:
        RunError: the predictions of a fold are gone.
    """
    files, truth, folds, groups, logits = [], [], [], [], []
    for fold in range(_folds(run)):
        rows, found = _read_predictions(run, fold)
        samples = with_validation_fold(run.images, fold).part("val")
        for row in rows.tolist():
            sample = samples[row]
            files.append(run.images.file(sample))
            truth.append(sample.label)
            folds.append(fold)
            groups.append(f"group {sample.group}" if sample.group else sample.path)
        logits.append(found)
    probabilities: Tensor = torch.from_numpy(np.concatenate(logits)).softmax(1).numpy()
    answers = OutOfFold(np.array(truth, np.int64), probabilities, np.array(folds, np.int64), groups)
    return answers, files


def cross_validated(run: Run) -> CrossValidation:
    """The figures of a cross-validation whose folds are finished.

    Raises:
        RunError: a fold is not finished, or its files are gone.
    """
    assert run.refit is not None
    best = [RunResult.read(Run.open(run.folds / str(fold))).best_epoch for fold in range(_folds(run))]
    answers, _ = out_of_fold(run)
    return answers.figures(run.settings.monitor, best, run.refit.epochs)


def summary(found: CrossValidation) -> str:
    """The cross-validated figure in one line for people."""
    low, high = found.accuracy_interval
    words, value, (least, most) = found.monitored
    monitored = "" if found.monitor == "accuracy" else f"; {words} {value:.3f} ({least:.3f} to {most:.3f})"
    groups = f" in {found.groups:,} groups" if found.groups < found.images else ""
    return (
        f"cross-validated accuracy {found.accuracy:.4f} ({low:.4f} to {high:.4f}) on {found.images:,} images{groups}"
        f"{monitored}; standard deviation of the {len(found.folds)} folds {found.accuracy_spread:.4f}"
    )


def choose_head(folds: Sequence[Mapping[str, Any]]) -> HeadChoice | None:
    """The head whose mean score over the folds is best, of those that every fold has tried.

    Args:
        folds: of each fold the event of its solved head, as `head_phase` records it; none where no head was solved for.

    Returns:
        Solver and weight decay; of nearest class means the geometric mean of the sharpness, which each fold chose for
        itself. The temperature is the median of the folds'.
    """
    scores: dict[tuple[str, float | None], list[float]] = defaultdict(list)
    sharpness: list[float] = []
    for event in folds:
        for tried in event["tried"]:
            is_path = tried["strength"] in STRENGTHS and tried["way"] == "L-BFGS"
            scores[tried["way"], tried["strength"] if is_path else None].append(tried["score"])
            sharpness += [] if is_path else [tried["strength"]]
    means = {key: statistics.fmean(values) for key, values in scores.items() if len(values) == len(folds)}
    if not means:
        return None
    # Of equal scores the first: strong weight decay before weak, and solvers before nearest means.
    name, strength = max(means, key=means.__getitem__)
    if strength is None:
        strength = math.exp(statistics.fmean(map(math.log, sharpness)))
    return HeadChoice(name, strength, statistics.median(event.get("temperature", 1.0) for event in folds))


def _chosen(run: Run) -> Refit:
    """What the folds chose: the median of their best epochs, and the head with the best mean score."""
    runs = [Run.open(run.folds / str(fold)) for fold in range(_folds(run))]
    epochs = statistics.median_high(RunResult.read(each).best_epoch for each in runs)
    heads = [event for each in runs for event in each.read_events("head")[-1:]]
    return Refit(epochs, choose_head(heads) if len(heads) == len(runs) else None)


def _train_fold(run: Run, fold: int) -> None:
    """Train the run of a fold to its end, and keep its predictions alone; nothing is done for a finished one.

    Raises:
        RunInterruptedError: a signal asked it to stop; it is saved.
    """
    path, count = run.folds / str(fold), _folds(run)
    if (path / PREDICTIONS).exists():
        return
    settings = run.settings.model_copy(update={"out": path, "tracking": "none"})
    images = replace(with_validation_fold(run.images, fold), notes=(), warnings=())  # the run on all images has them
    parts = ", ".join(f"{len(images.part(part)):,} {part}" for part in ("train", "val"))
    print(f"fold {fold} (of folds 0 to {count - 1}): {parts}", file=sys.stderr, flush=True)
    started = time.perf_counter()
    opened: Run | None = None
    with suppress(RunError):
        opened = Run.open(path)
    if opened is not None and opened.has_checkpoint:
        opened = opened.with_settings(settings, run.source, run.images.root)
    else:
        shutil.rmtree(path, ignore_errors=True)
        opened = Run.create(path, settings, images, run.preprocessing, run.provenance, fold)
    Trainer().run_locked(opened)
    _keep_predictions(opened)
    result = RunResult.read(opened)
    run.record("fold", fold=fold, best_epoch=result.best_epoch, **result.metrics, seconds=time.perf_counter() - started)


def _keep_predictions(run: Run) -> None:
    """Write a finished fold's predictions, then remove its checkpoints."""
    state = checkpoint.load(run.best, "Train the cross-validation again.")
    row_of = {sample.path: row for row, sample in enumerate(run.images.part("val"))}
    answers = state["validation"]
    rows = np.array([row_of[path] for path in answers[PATHS]], np.int64)
    with atomic_path(run.path / PREDICTIONS) as partial, partial.open("wb") as file:
        np.savez(file, rows=rows, logits=answers[LOGITS].numpy())
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _read_predictions(run: Run, fold: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Tensor]:
    """Rows int64 (N,) and logits float32 (N, C) of a finished fold."""
    path = run.folds / str(fold) / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as found:
            return found["rows"], found["logits"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"The predictions of fold {fold} were expected at {path}.",
            f"They cannot be read ({error}).",
            f"Finish the folds: lensmith train --resume {run.path}; or train anew into another folder with --out.",
        ) from error


@contextmanager
def _resumed_as_whole(run: Run) -> Iterator[None]:
    """Make what a signal raises, in a fold or between two, an error of the whole; not before it can be resumed."""
    try:
        yield
    except BaseException as error:
        number = signal_of(error)
        if number is None or not _has_begun(run):
            raise
        raise RunInterruptedError.by(
            number,
            f"The cross-validation {run.path} was to train all folds, and then on all images.",
            f"{number.name} stopped it; what is trained so far is saved.",
            f"Resume it with: lensmith train --resume {run.path}",
        ) from error


def _folds(run: Run) -> int:
    assert run.settings.cv is not None
    return run.settings.cv


def _has_begun(run: Run) -> bool:
    """Whether there is something to resume: a checkpoint, or a fold's predictions."""
    folds = [path.parent for path in run.folds.glob(f"*/{DESCRIPTION}")]
    return run.has_checkpoint or any((path / PREDICTIONS).exists() or Run.open(path).has_checkpoint for path in folds)


def _require_one_process() -> None:
    """Refuse torchrun, whose processes would each train every fold."""
    if (size := World.join().size) > 1:
        raise SettingsError(
            "One process was expected with cv.",
            f"{size} were started together, as torchrun does.",
            "Start one, with --processes N for the GPUs of this machine.",
        )
