"""The user's own augmentation from a file: transforms of torchvision, or a pipeline that Albumentations saved.

A pipeline changes one cropped image in the data-loader worker. It draws from the sample's own random numbers, and it is
tried once on a grey image before the training starts.
"""

import random as python_random
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torchvision import tv_tensors
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from lensmith.errors import MissingPackageError, SettingsError, UnmaintainedWarning
from lensmith.imaging.preprocessing import Pixels

_ENUMS = {"interpolation": InterpolationMode, "policy": AutoAugmentPolicy}
"""Arguments of transforms whose values are enumerations, written in a file as their names."""

_ONE_AT_A_TIME = threading.Lock()
"""Lock for torch's random generator and that of a pipeline, which threads share."""


@contextmanager
def seeded_torch(random: np.random.Generator) -> Iterator[None]:
    """Let torch's own generator draw from `random` within, for one thread at a time, and put its state back."""
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        yield


class TorchvisionPipeline:
    """Transforms of torchvision.transforms.v2, listed by name in a file.

    Args:
        path: YAML or JSON file: a list of names, each alone or with its arguments (`- ColorJitter: {hue: 0.1}`).
        image_size: pixels a side of the image on which it is tried.

    Raises:
        SettingsError: the file holds no list of transforms that keep size and type.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        try:
            self._pipeline = v2.Compose(_transforms(yaml.safe_load(path.read_text(encoding="utf-8"))))
            made = self(*_trial(image_size))
        except Exception as error:  # whatever a transform raises
            raise _unusable(path, _failure(error), _TORCHVISION) from error
        _require_same_size(path, made, image_size, _TORCHVISION)

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Transform an image uint8 (S, S, 3), with the same shape as result."""
        image = tv_tensors.Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        with seeded_torch(random):
            altered = self._pipeline(image)
        return np.ascontiguousarray(altered.permute(1, 2, 0).numpy())


class AlbumentationsPipeline:
    """A pipeline of transforms that `albumentations.save` wrote.

    Args:
        path: file that ends in .json, .yaml or .yml.
        image_size: pixels a side of the image on which it is tried.

    Raises:
        MissingPackageError: albumentations is not installed.
        SettingsError: no such pipeline.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        try:
            import albumentations
        except ModuleNotFoundError as error:
            raise MissingPackageError.of(error) from error
        message = (
            "Albumentations is no longer maintained; --transforms takes a file of torchvision's transforms instead."
        )
        warnings.warn(message, UnmaintainedWarning, stacklevel=2)
        try:
            loaded = albumentations.load(path, data_format="json" if path.suffix == ".json" else "yaml")
            self._pipeline: Any = albumentations.Compose([loaded])
            made = self(*_trial(image_size))
        except Exception as error:  # whatever a transform raises
            raise _unusable(path, _failure(error), _ALBUMENTATIONS) from error
        _require_same_size(path, made, image_size, _ALBUMENTATIONS)

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Transform an image uint8 (S, S, 3), with the same shape as result."""
        # The library seeds every transform alike, so that all of them would be applied, or none.
        with _ONE_AT_A_TIME:
            self._pipeline.set_random_state(random, python_random.Random(int(random.integers(2**63))))
            altered: Pixels = self._pipeline(image=pixels)["image"]
        return np.ascontiguousarray(altered)


_TORCHVISION = (
    "A list of torchvision's transforms (v2) that keep a picture's size and type was expected in",
    "Write `- ColorJitter: {brightness: 0.3}`, one transform a line, without a change of size, type or normalisation.",
)
_ALBUMENTATIONS = (
    "A pipeline of Albumentations that keeps a picture's size was expected in",
    "Write it with albumentations.save(pipeline, FILE), without a change of size, normalisation or ToTensor.",
)
"""What was expected, and the remedy."""


def _transforms(listed: Any) -> list[v2.Transform]:
    if not isinstance(listed, list) or not listed:
        raise ValueError("no list of transforms")
    return [_transform(each) for each in listed]


def _transform(entry: Any) -> v2.Transform:
    """One transform from `Name`, or from `{Name: {argument: value}}`; a list under `transforms` holds transforms."""
    named = {entry: None} if isinstance(entry, str) else entry
    if not isinstance(named, Mapping) or len(named) != 1:
        raise ValueError(f"one name, alone or with its arguments, was expected in {entry!r}")
    ((name, given),) = named.items()
    kind = getattr(v2, str(name), None) if str(name)[:1].isupper() else None
    if not (isinstance(kind, type) and issubclass(kind, v2.Transform)):
        raise ValueError(f"torchvision.transforms.v2 has no transform {name!r}")
    if not isinstance(given or {}, Mapping):
        raise ValueError(f"{name} takes its arguments by name, as {{p: 0.5}}")
    arguments = {key: _ENUMS[key](value) if key in _ENUMS else value for key, value in (given or {}).items()}
    if "transforms" in arguments:
        arguments["transforms"] = _transforms(arguments["transforms"])
    return kind(**arguments)


def _trial(image_size: int) -> tuple[Pixels, np.random.Generator]:
    return np.full((image_size, image_size, 3), 128, dtype=np.uint8), np.random.default_rng(0)


def _failure(error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or "no reason given"
    return f"It cannot be loaded or run ({type(error).__name__}: {reason})."


def _require_same_size(path: Path, made: Pixels, image_size: int, texts: tuple[str, str]) -> None:
    wanted = (image_size, image_size, 3)
    if made.shape != wanted or made.dtype != np.uint8:
        raise _unusable(path, f"It makes {made.dtype} {made.shape} of uint8 {wanted}.", texts)


def _unusable(path: Path, arrived: str, texts: tuple[str, str]) -> SettingsError:
    return SettingsError(f"{texts[0]} {path}.", arrived, texts[1])
