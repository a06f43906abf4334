"""Weights on disk with their configuration: a file, or a folder laid out as a repository of the Hugging Face hub.

config.json                 the architecture (timm's own also have mean and standard deviation of the images)
preprocessor_config.json    mean, standard deviation and resampling of the images
model.safetensors           the tensors, or pytorch_model.bin, or several files and an index (….index.json)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lensmith.errors import ModelError
from lensmith.training.models.state_dict import read_state_dict

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights file in a repository, preferred one first."""

_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which transformers writes


def has_weights(folder: Path) -> bool:
    """Whether `folder` holds weights under one of the names that `read` knows."""
    return any((folder / name).is_file() for file in FILES for name in (file, _index(file)))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Weights from a file, or from a folder laid out as a repository, with their configuration.

    Args:
        path: a file that `read_state_dict` takes, or a folder. The configuration beside a file is read if the file has
            one of the names FILES.

    Returns:
        The tensors by name, of any dtype and shape; the content of config.json; and `mean`, `std` and `interpolation`
        of the images the weights were trained on, as far as recorded.

    Raises:
        ModelError: there are no weights, or a file is damaged.
    """
    folder = path if path.is_dir() else path.parent
    state = _state(path) if path.is_dir() else read_state_dict(path)
    if folder != path and path.name not in FILES:
        return state, {}, {}
    config, processor = folder / "config.json", folder / "preprocessor_config.json"
    content = _json(config)
    images = _images(content.get("pretrained_cfg"), config, ("mean", "std"))  # timm's own repositories
    images |= _images(_json(processor), processor, ("image_mean", "image_std"))
    return state, content, images


def _state(folder: Path) -> dict[str, Tensor]:
    for file in FILES:
        if (folder / file).is_file():
            return read_state_dict(folder / file)
        if (folder / _index(file)).is_file():
            parts = _json(folder / _index(file)).get("weight_map")
            names = set(parts.values()) if isinstance(parts, Mapping) else set()
            if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
                raise ModelError(
                    f"The names of files beside it were expected in {folder / _index(file)}.",
                    "Its weight_map holds none, or others.",
                    "Copy the folder again.",
                )
            return {key: value for name in sorted(names) for key, value in read_state_dict(folder / name).items()}
    raise ModelError(
        f"Weights were expected in the folder {folder}.",
        f"It holds neither {' nor '.join(FILES)}, nor the index of either.",
        "Name the weights file itself.",
    )


def _images(recorded: Any, path: Path, names: tuple[str, str]) -> dict[str, Any]:
    """Image statistics of a configuration under timm's names; `names` are the configuration's for mean and std."""
    if not isinstance(recorded, Mapping):
        return {}
    if recorded.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    found: dict[str, Any] = {}
    for ours, theirs in zip(("mean", "std"), names, strict=True):
        if recorded.get(theirs) is not None:
            found[ours] = _three(recorded[theirs], f"{theirs} in {path}", positive=ours == "std")
    resampling = recorded.get("interpolation", _FILTERS.get(recorded.get("resample", 0)))
    return found | ({"interpolation": resampling} if resampling in _FILTERS.values() else {})


def _three(value: Any, where: str, positive: bool) -> tuple[float, ...]:
    numbers = isinstance(value, list) and all(isinstance(one, int | float) for one in value)
    if not numbers or len(value) != 3 or (positive and min(value) <= 0):
        raise ModelError(
            f"Three {'positive ' if positive else ''}numbers, one a colour, were expected as {where}.",
            f"{value!r} arrived.",
            "Copy the file again.",
        )
    return tuple(map(float, value))


def _index(file: str) -> str:
    return f"{file}.index.json"


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"JSON was expected in {path}.", f"It is damaged ({error}).", "Copy it again.") from error
    return content if isinstance(content, dict) else {}
