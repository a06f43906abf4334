"""Train and export: from a folder of images to a run with its bundle."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from lensmith.bundle.format import Bundle, Manifest
from lensmith.config import ExportSettings, TrainSettings
from lensmith.config.base import read_yaml
from lensmith.core.packages import TRAINING, require_packages
from lensmith.errors import BundleError
from lensmith.evaluation.cross_validation import CrossValidation
from lensmith.exporting.export import export
from lensmith.exporting.parity import Parity
from lensmith.tracking.address import uri_of
from lensmith.tracking.sidecar import TrackingSidecar, TrackingStatus
from lensmith.training.cross_validation import CrossValidator, cross_validated
from lensmith.training.microbatch.distributed import World
from lensmith.training.recipe_file import missing_names
from lensmith.training.result import RunResult
from lensmith.training.run_dir import find_resumable
from lensmith.training.run_dir.run import Run
from lensmith.training.schedule import settings_of
from lensmith.training.signals import RunInterruptedError, signal_of
from lensmith.training.trainer import Trainer

AUTO = "auto"
"""`--resume auto`: resume the run of this command line if there is one, else start it."""


@dataclass(frozen=True)
class Trained:
    """A run with its bundle.

    Attributes:
        result: the training's figures.
        bundle: the bundle's folder.
        accuracy: accuracy of the bundle's engine on the validation part, 0..1.
        parity: agreement of the bundle's graph with PyTorch.
        seconds: time that training and export took together.
        already: whether both were finished before, so that nothing was left to do.
        tracked: the run in MLflow; None: it is not tracked.
        cross_validation: figures of the folds' models; None: the training was none with folds. Then `accuracy` is that
            of the bundle on the images that it learnt from.
    """

    result: RunResult
    bundle: Path
    accuracy: float
    parity: Parity
    seconds: float = 0.0
    already: bool = False
    tracked: TrackingStatus | None = None
    cross_validation: CrossValidation | None = None

    @property
    def _accuracy_name(self) -> str:
        return "accuracy" if self.cross_validation is None else "train_accuracy"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.result.run.path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the figures at the top level, besides the other attributes."""
        return {
            **self.result.as_dict(),
            "bundle": str(self.bundle),
            "metrics": {**self.result.metrics, self._accuracy_name: self.accuracy},
            "cross_validation": self.cross_validation and self.cross_validation.as_dict(),
            "parity": self.parity.as_dict(),
            "seconds": self.seconds,
            "already": self.already,
            "tracking": self.tracked and self.tracked.as_dict(),
        }


def train(
    given: Mapping[str, Any],
    recipe: str | PathLike[str] | None = None,
    resume: str | PathLike[str] | None = None,
    base_settings: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a run, then export its bundle into the run folder.

    Args:
        given: settings given by flag or keyword; None means not given.
        recipe: a YAML file of settings, under those given.
        resume: the run folder to resume; AUTO looks for one by the settings.
        base_settings: settings under the recipe and over the preset.

    Raises:
        MissingPackageError: a package that the training or the export at its end needs is not installed.
        SettingsError: settings that cannot be used.
        RegistryError: a tracking URI of which MLflow knows no kind; one that does not answer stops no training.
        RunError: settings, classes or images are not those of the run to resume.
    """
    require_packages(*TRAINING)
    started, runs = time.perf_counter(), list[Run]()
    with TrackingSidecar() as sidecar:

        def begin(run: Run) -> None:
            runs.append(run)
            sidecar.begin(run.path, run.settings.tracking)

        with _failure_recorded(runs):
            if resume is None or resume == AUTO:
                settings = settings_for(given, recipe, base_settings)
                path = None if resume is None else World.join().on_rank_zero(lambda: find_resumable.find(settings))
                expected = dict(settings)
            else:
                path = Path(resume)
                expected = _given_for(Run.open(path), given, recipe)
            trained = None
            if path is None:
                result = _trainer(settings, begin).start(settings)
            else:
                opened = Run.open(path)
                finished = opened.is_finished
                result = _trainer(opened.settings, begin).resume(path, expected)
                trained = _exported_before(result) if finished else None
            trained = trained or World.join().on_rank_zero(lambda: _export(result))
        seconds = time.perf_counter() - started
    return replace(trained, seconds=seconds, tracked=sidecar.tracked())


def _trainer(settings: TrainSettings, begin: Callable[[Run], None]) -> Trainer | CrossValidator:
    return Trainer(begin) if settings.cv is None else CrossValidator(begin)


def settings_for(
    given: Mapping[str, Any], recipe: str | PathLike[str] | None, base_settings: Mapping[str, Any] | None = None
) -> TrainSettings:
    """The settings of a new run, from arguments as those of `train`.

    Raises:
        SettingsError: settings that cannot be used.
    """
    if recipe is None:
        settings = settings_of(given, base_settings)
    else:
        written = {**(base_settings or {}), **read_yaml(Path(recipe))}
        settings = settings_of(given, written, others=missing_names(TrainSettings.layers(given, written)))
    uri_of(settings.tracking, None)  # refuse a tracking URI of no kind before anything is trained
    return settings


def _given_for(run: Run, given: Mapping[str, Any], recipe: str | PathLike[str] | None) -> dict[str, Any]:
    """The settings given by flag, keyword or recipe beside `--resume RUN`, validated."""
    written = TrainSettings.current_names(read_yaml(Path(recipe)) if recipe is not None else {})
    stated = {name: value for name, value in TrainSettings.current_names(given).items() if value is not None}
    explicit = {**written, **stated}
    # Over the run's own, since a setting may only make sense beside another.
    settings = TrainSettings.resolve({**run.settings.model_dump(), "out": run.path, **explicit})
    uri_of(settings.tracking, None)
    return {name: getattr(settings, name) for name in explicit}


@contextmanager
def _failure_recorded(runs: Sequence[Run]) -> Iterator[None]:
    """Add a `failed` event to the run whose training ends with an error that is no signal."""
    try:
        yield
    except RunInterruptedError:
        raise
    except Exception as error:
        with suppress(OSError):
            for run in runs:
                if run.has_checkpoint and not run.is_finished:
                    run.record("failed", reason=str(error))
        raise


def _export(result: RunResult) -> Trained:
    path = result.run.path
    try:
        made = export(ExportSettings(run=path, overwrite=True), quick=True)
    except (KeyboardInterrupt, SystemExit) as error:
        if (number := signal_of(error)) is None:
            raise
        raise RunInterruptedError.by(
            number,
            f"The bundle of the run {path} was to be exported.",
            f"{number.name} stopped it; the training is finished and saved.",
            f"Make the bundle with: lensmith export {path}",
        ) from None
    except Exception:
        finished = f"the training is finished and saved; its bundle can be made with: lensmith export {path}"
        print(finished, file=sys.stderr, flush=True)
        raise
    return _trained(result, made.manifest, made.bundle)


def _exported_before(result: RunResult) -> Trained | None:
    """The run with the bundle that it already has; None where there is no whole one of its best epoch."""
    try:
        manifest = Bundle.load(result.run.bundle).manifest
    except BundleError:
        return None
    if manifest.recipe["best_epoch"] != result.best_epoch:  # of an export that was interrupted
        return None
    return replace(_trained(result, manifest, result.run.bundle), already=True)


def _trained(result: RunResult, manifest: Manifest, bundle: Path) -> Trained:
    parity = Parity.from_dict(manifest.parity)
    if result.run.refit is None:
        return Trained(result, bundle, manifest.metrics["accuracy"], parity)
    accuracy = manifest.engines[0].accuracy
    assert accuracy is not None  # it was measured in the engine search
    return Trained(result, bundle, accuracy, parity, cross_validation=cross_validated(result.run))
