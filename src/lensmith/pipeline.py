"""Rooms joined: a folder of images to a run with its bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from lensmith.config import ExportSettings, TrainSettings, read_yaml
from lensmith.errors import SettingsError
from lensmith.export.assemble import Exported, export
from lensmith.train.fit import Fitted, fit
from lensmith.train.fit import resume as go_on
from lensmith.train.loop import RunInterruptedError
from lensmith.train.recipe import PRESETS


@dataclass(frozen=True)
class Trained:
    """A run with its bundle.

    Attributes:
        fitted: what training came to.
        exported: what export came to.
        seconds: both together.
    """

    fitted: Fitted
    exported: Exported
    seconds: float

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.fitted.run.path

    @property
    def bundle(self) -> Path:
        """The bundle in it."""
        return self.exported.bundle

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "best_epoch": self.fitted.best_epoch,
            "epochs": self.fitted.epochs,
            "steps": self.fitted.steps,
            "metrics": {**self.fitted.metrics, "accuracy": self.exported.evaluation.metrics.accuracy},
            "parity": self.exported.parity.as_dict(),
            "images_per_second": self.fitted.images_per_second,
            "seconds": self.seconds,
        }


def train(
    given: Mapping[str, Any], recipe: str | PathLike[str] | None = None, resume: str | PathLike[str] | None = None
) -> Trained:
    """Fit, then export into the run folder.

    Args:
        given: settings that were said; None means not said.
        recipe: a YAML file of settings under them.
        resume: go on with this run folder instead.

    Raises:
        SettingsError: settings that cannot be used, or that were said beside `resume`.
    """
    started = time.perf_counter()
    fitted = fit(_settings(given, recipe)) if resume is None else go_on(_resumed(given, recipe, Path(resume)))
    try:
        exported = export(ExportSettings(run=fitted.run.path, overwrite=True))
    except KeyboardInterrupt:
        error = RunInterruptedError(
            f"The bundle of the run {fitted.run.path} was to be exported.",
            "Ctrl-C stopped it; the training is finished and saved.",
            f"Make the bundle with: lensmith export {fitted.run.path}",
        )
        error.exit_code = 130
        raise error from None
    return Trained(fitted, exported, time.perf_counter() - started)


def _settings(given: Mapping[str, Any], recipe: str | PathLike[str] | None) -> TrainSettings:
    written = read_yaml(Path(recipe)) if recipe is not None else {}
    first = TrainSettings.resolve(given, written)
    # A preset lies under the recipe that may have named it.
    return TrainSettings.resolve(given, {**PRESETS[first.preset], **written})


def _resumed(given: Mapping[str, Any], recipe: str | PathLike[str] | None, run: Path) -> Path:
    said = sorted(name for name, value in given.items() if value is not None) + (["recipe"] if recipe else [])
    if said:
        raise SettingsError(
            f"Only --resume was expected: the run {run} has its settings already.",
            f"These were said as well: {', '.join(said)}.",
            "Leave them out, or train anew into another folder.",
        )
    return run
