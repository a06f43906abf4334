"""State dicts: read from a file without running code in it, and loaded into a model exactly or not at all."""

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.core.text import first_sentence, listed
from lensmith.errors import ModelError

SHOWN = 10
"""Names that an error lists at most."""

_NESTS = ("state_dict", "model", "model_state", "model_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, of any dtype and shape, on the CPU.

    A dict around the dict (`state_dict`, `model`) and the prefixes of wrapped models are removed.

    Args:
        path: file that ends in .safetensors, or that `torch.save` wrote.

    Raises:
        ModelError: the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError(f"A weights file was expected at {path}.", "There is none.", "Check the path.")
    content = _content(path)
    while isinstance(content, Mapping) and (nest := next((key for key in _NESTS if key in content), None)):
        content = content[nest]
    if not isinstance(content, Mapping) or not content:
        raise _no_state_dict(path, f"It holds {'nothing' if content == {} else f'a {type(content).__name__}'}")
    if strange := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise _no_state_dict(path, f"These entries are no tensors: {listed(strange, SHOWN)}")
    state = dict(content)
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], where: str, without: Collection[str] = ()) -> None:
    """Copy `state` into `model`, where names and shapes of both are the same, except for `without`.

    Args:
        model: the model whose parameters and buffers are overwritten.
        state: tensors of any dtype by name, in the model's shapes.
        where: origin of the tensors, for error messages.
        without: names to ignore in the model and in `state`.

    Raises:
        ModelError: names or shapes do not fit; it lists them, and nothing was loaded.
    """
    own = {key: value for key, value in model.state_dict().items() if key not in without}
    given = {key: value for key, value in state.items() if key not in without}
    both = own.keys() & given.keys()
    found = {
        # BatchNorm's step counters are missing from files of early PyTorch, and nothing here uses them.
        "missing": [key for key in own if key not in both and not key.endswith(".num_batches_tracked")],
        "of another name": [key for key in given if key not in both],
        "of another shape": [
            f"{key} {_shape(given[key])} instead of {_shape(own[key])}"
            for key in own
            if key in both and own[key].shape != given[key].shape
        ],
    }
    if problems := [f"{len(keys)} {what} ({listed(keys, SHOWN)})" for what, keys in found.items() if keys]:
        cfg = getattr(model, "pretrained_cfg", None) or {}
        raise ModelError(
            f"The {len(own)} tensors of {cfg.get('architecture') or type(model).__name__} were expected in {where}.",
            f"Not all that is there fits: {'; '.join(problems)}.",
            "Name the backbone and image size that the weights were made with, or rename the tensors.",
        )
    model.load_state_dict(given, strict=False)


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, before it refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each have exceptions of their own
        raise _no_state_dict(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error)
    # torch's advice here is to load the file all the same, which would run what is in it.
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"It holds Python objects besides tensors ({found[1]}), and reading those could run code"
    if type(error).__name__ in ("RuntimeError", "SafetensorError"):
        return f"It is damaged, or something else ({first_sentence(text)})"
    return "It is damaged, or holds something else"


def _no_state_dict(path: Path, arrived: str) -> ModelError:
    return ModelError(
        f"A file of tensors by name (a state dict) was expected at {path}.",
        f"{arrived}.",
        "Make one with `torch.save(model.state_dict(), FILE)` or safetensors, or copy it again.",
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
