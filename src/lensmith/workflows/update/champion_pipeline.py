"""The pipeline of an update: the champion's settings of training and export, written as a pipeline's file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lensmith.bundle.format import Bundle
from lensmith.config import TrainSettings
from lensmith.core.files import atomic_write
from lensmith.core.labels import matched_label
from lensmith.core.text import listed
from lensmith.errors import BundleError, DataError
from lensmith.exporting.card import recipe_of
from lensmith.training.schedule import settings_of

OF_THE_UPDATE = ("data", "out", "split", "layout", "group", "exclude", "relabel", "time_budget")
"""Settings of a training that the update sets itself; what a time budget chose is among the others."""


def recorded_settings(champion: Bundle) -> dict[str, Any]:
    """The settings of a bundle's training, as its manifest records them.

    Raises:
        BundleError: the bundle records none.
    """
    recorded = champion.manifest.recipe
    settings = {name: value for name, value in recorded.items() if name in TrainSettings.model_fields}
    if "model" not in settings:
        raise BundleError(
            f"A bundle that records the settings of its training was expected at {champion.path}.",
            "It records none.",
            "Train once with `lensmith train` or `lensmith pipeline run`, and promote that model.",
        )
    return settings


def training_settings(manifest: Path, recorded: Mapping[str, Any]) -> TrainSettings:
    """The settings of the training: those recorded of the champion's, on the update's manifest.

    Raises:
        SettingsError: recorded settings that this lensmith refuses.
    """
    return settings_of({"data": manifest}, {key: recorded[key] for key in recorded if key not in OF_THE_UPDATE})


def new_classes(labels: Sequence[str], champion: Bundle, data: Path) -> list[str]:
    """Classes of the data that are new to the champion.

    Raises:
        DataError: a class of the champion has no images any more.
    """
    known = {label: matched_label(label, champion.labels) for label in labels}
    if gone := sorted(set(champion.labels) - set(known.values())):
        raise DataError(
            f"Images of all classes that the champion knows were expected in {data}.",
            f"There are none of {listed(gone)}.",
            "Put them back; for other classes train a new model: lensmith train.",
        )
    return [label for label, match in known.items() if match is None]


def write_pipeline(
    file: Path, name: str, manifest: Path, champion: Bundle, settings: TrainSettings, where: Mapping[str, Any]
) -> None:
    """Write the pipeline's file.

    Args:
        file: path of the file.
        name: name of the pipeline and its bundles.
        manifest: manifest of the pictures with their parts.
        champion: bundle of the champion.
        settings: settings of the training.
        where: sections on what the new model is compared with, and where it goes.
    """
    recipe = recipe_of(settings)
    train = {key: value for key, value in recipe.items() if key not in OF_THE_UPDATE}
    content = {
        "name": name,
        "data": str(manifest.resolve()),
        "split": False,  # the manifest has the parts
        "train": train,
        "evaluate": False,  # the page before and after has the figures
        # A champion with one engine was exported by its training alone, as the new model is then.
        "export": {"bundle_name": champion.manifest.name} if len(champion.manifest.engines) > 1 else False,
        **where,
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    atomic_write(file, f"# Written by `lensmith update`, which writes it anew each time.\n{text}")
