"""Rooms joined: a folder of images to a run with its bundle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from lensmith.bundle.format import Bundle
from lensmith.config import ExportSettings, TrainSettings
from lensmith.config.base import read_yaml
from lensmith.errors import BundleError
from lensmith.exporting.export import export
from lensmith.exporting.parity import Parity
from lensmith.tracking.address import uri_of
from lensmith.tracking.sidecar import TrackingSidecar, TrackingStatus
from lensmith.training.microbatch.distributed import World
from lensmith.training.recipe_file import not_there
from lensmith.training.result import Fitted
from lensmith.training.run_dir import find_resumable
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import settings_of
from lensmith.training.signals import RunInterruptedError
from lensmith.training.trainer import fit
from lensmith.training.trainer import resume as go_on

AUTO = "auto"
"""`--resume auto`: go on with the run of this command line if there is one, else begin it."""


@dataclass(frozen=True)
class Trained:
    """A run with its bundle.

    Attributes:
        fitted: what training came to.
        bundle: the bundle.
        accuracy: of the bundle's engine on the validation part.
        parity: of the bundle's graph with PyTorch.
        seconds: training and export together.
        already: both were finished before, so that nothing was left to do.
        tracked: where in MLflow the run is; None: nowhere.
    """

    fitted: Fitted
    bundle: Path
    accuracy: float
    parity: Parity
    seconds: float
    already: bool = False
    tracked: TrackingStatus | None = None

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.fitted.run.path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.fitted.as_dict(),
            "bundle": str(self.bundle),
            "metrics": {**self.fitted.metrics, "accuracy": self.accuracy},
            "parity": self.parity.as_dict(),
            "seconds": self.seconds,
            "already": self.already,
            "tracking": self.tracked and self.tracked.as_dict(),
        }


def train(
    given: Mapping[str, Any],
    recipe: str | PathLike[str] | None = None,
    resume: str | PathLike[str] | None = None,
    beneath: Mapping[str, Any] | None = None,
) -> Trained:
    """Fit, then export into the run folder.

    Args:
        given: settings that were said; None means not said.
        recipe: a YAML file of settings under them.
        resume: go on with this run folder; AUTO looks for one by the settings.
        beneath: see `settings_for`.

    Raises:
        SettingsError: settings that cannot be used.
        RegistryError: a tracking URI of which MLflow knows no kind; one that does not answer stops no training.
        RunError: settings, classes or images are not those of the run to go on with.
    """
    with TrackingSidecar() as beside:
        begun: list[Run] = []

        def track(run: Run) -> None:
            begun.append(run)
            beside.begin(run.path, run.settings.tracking)

        with _failure_told(begun):
            trained = _train(given, recipe, resume, beneath, track)
    return replace(trained, tracked=beside.tracked())


@contextmanager
def _failure_told(begun: Sequence[Run]) -> Iterator[None]:
    """Let the run's events say what ended its training, where that was neither its end nor a signal."""
    try:
        yield
    except RunInterruptedError:
        raise
    except Exception as error:
        with suppress(OSError):
            for run in begun:
                if run.begun and not run.ended:
                    run.record("failed", reason=str(error))
        raise


def _train(
    given: Mapping[str, Any],
    recipe: str | PathLike[str] | None,
    resume: str | PathLike[str] | None,
    beneath: Mapping[str, Any] | None,
    beside: Callable[[Run], None],
) -> Trained:
    started = time.perf_counter()
    if resume is None:
        return _export(fit(settings_for(given, recipe, beneath), beside), started)
    if resume == AUTO:
        settings = settings_for(given, recipe, beneath)
        path, said = World.join().on_rank_zero(lambda: find_resumable.find(settings)), dict(settings)
        if path is None:
            return _export(fit(settings, beside), started)
    else:
        path = Path(resume)
        said = _said(given, recipe, Run.open(path))
    ended = Run.open(path).ended
    fitted = go_on(path, said, beside)
    return (_finished(fitted, started) if ended else None) or _export(fitted, started)


def _export(fitted: Fitted, started: float) -> Trained:
    """Export on one rank; where there are others, they wait for it."""
    world = World.join()
    if world.is_rank_zero:
        made = _export_alone(fitted, started)
        world.broadcast_object(True)
        return made
    world.broadcast_object(None)
    exported = _finished(fitted, started)
    assert exported is not None  # rank 0 has just written it
    return exported


def _export_alone(fitted: Fitted, started: float) -> Trained:
    try:
        made = export(ExportSettings(run=fitted.run.path, overwrite=True), quick=True)
    except KeyboardInterrupt:
        error = RunInterruptedError(
            f"The bundle of the run {fitted.run.path} was to be exported.",
            "Ctrl-C stopped it; the training is finished and saved.",
            f"Make the bundle with: lensmith export {fitted.run.path}",
        )
        error.exit_code = 130
        raise error from None
    except Exception:
        finished = f"the training is finished and saved; its bundle can be made with: lensmith export {fitted.run.path}"
        print(finished, file=sys.stderr, flush=True)
        raise
    accuracy = made.evaluation.metrics.accuracy
    return Trained(fitted, made.bundle, accuracy, made.parity, time.perf_counter() - started)


def _finished(fitted: Fitted, started: float) -> Trained | None:
    """The run with the bundle it has already; None where there is no whole one."""
    try:
        manifest = Bundle.load(fitted.run.bundle).manifest
    except BundleError:
        return None
    if manifest.recipe["best_epoch"] != fitted.best_epoch:  # exported half-way
        return None
    parity, accuracy = Parity.from_dict(manifest.parity), manifest.metrics["accuracy"]
    return Trained(fitted, fitted.run.bundle, accuracy, parity, time.perf_counter() - started, already=True)


def settings_for(
    given: Mapping[str, Any], recipe: str | PathLike[str] | None, beneath: Mapping[str, Any] | None = None
) -> TrainSettings:
    """The settings of a training.

    Args:
        given: that were said; None means not said.
        recipe: a YAML file of settings under them.
        beneath: settings under that, and over the preset.

    Raises:
        SettingsError: settings that cannot be used.
    """
    if recipe is None:
        settings = settings_of(given, beneath)
    else:
        written = {**(beneath or {}), **read_yaml(Path(recipe))}
        settings = settings_of(given, written, others=not_there(TrainSettings.layers(given, written)))
    uri_of(settings.tracking, None)  # a place that can be none is said before anything is trained
    return settings


def _said(given: Mapping[str, Any], recipe: str | PathLike[str] | None, run: Run) -> dict[str, Any]:
    """The settings that were said by flag, keyword or recipe beside `--resume RUN`, validated."""
    written = TrainSettings.current_names(read_yaml(Path(recipe)) if recipe is not None else {})
    said = {
        **written,
        **{name: value for name, value in TrainSettings.current_names(given).items() if value is not None},
    }
    # Over the run's own, since a setting may only make sense beside another.
    settings = TrainSettings.resolve({**run.settings.model_dump(), "out": run.path, **said})
    uri_of(settings.tracking, None)
    return {name: getattr(settings, name) for name in said}
