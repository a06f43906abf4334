"""Recipe files, validated before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.config import TrainSettings
from lensmith.config.base import read_yaml
from lensmith.training.dataloading import augment
from lensmith.training.models import backbone, zoo
from lensmith.training.models.weights import HUB_PREFIX
from lensmith.training.schedule import WITHOUT_DATA, Phase, phases_of, settings_of

FILES = ("data", "weights", "transforms", "albumentations", "teacher")
"""Settings that name a file or folder on this machine."""


@dataclass(frozen=True)
class ValidatedRecipe:
    """A recipe that can be trained.

    Attributes:
        path: the recipe file.
        settings: the resolved settings; `data` is a placeholder unless the file names it.
        stages: number of the backbone's stages.
        phases: the run's phases.
    """

    path: Path
    settings: TrainSettings
    stages: int
    phases: tuple[Phase, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; epochs are 1-based and inclusive."""
        return {
            "recipe": str(self.path),
            "usable": True,
            "model": self.settings.model,
            "stages": self.stages,
            "phases": [
                {
                    "name": phase.name,
                    "first_epoch": phase.first_epoch + 1,
                    "last_epoch": phase.end_epoch,
                    "trainable_stages": self.stages if phase.trainable is None else phase.trainable,
                    "image_size": phase.image_size or self.settings.model_size,
                }
                for phase in self.phases
            ],
        }


def validate(path: Path) -> ValidatedRecipe:
    """Validate a recipe: first its settings, all mistakes together; then whether its network can be built.

    Raises:
        SettingsError: the recipe's mistakes.
        MissingPackageError: a package that it needs is not installed.
    """
    return validate_content(path, read_yaml(path))


def validate_content(path: Path, written: Mapping[str, Any]) -> ValidatedRecipe:
    """Validate the content of the recipe file `path`; see `validate`."""
    settings = settings_of({}, {**WITHOUT_DATA, **written}, others=missing_names(TrainSettings.layers({}, written)))
    bare = settings.model_copy(update={"pretrained": False, "weights": None})
    network = backbone.build(bare, classes=2)
    augment.build(settings, network.preprocessing.image_size)
    stages = len(network.stages) - 1
    return ValidatedRecipe(path, settings, stages, phases_of(settings, stages))


def missing_names(settings: Mapping[str, Any]) -> list[str]:
    """Mistakes in settings that are not yet validated: an unknown backbone, and files that do not exist."""
    found = []
    model = settings.get("model")
    if isinstance(model, str) and not zoo.is_known(model):
        near = " or ".join(zoo.nearest(model))
        found.append(f"model = {model!r} is no backbone" + (f", {near} is" if near else ""))
    for name in FILES:
        path = settings.get(name)
        there = not isinstance(path, (str, Path)) or str(path).startswith(HUB_PREFIX) or Path(path).exists()
        if not there:
            found.append(f"{name} = {str(path)!r} is not there")
    return found
