"""Conversion of other libraries' state dicts into timm's names and shapes, so that the network computes the same.

    torchvision, transformers   by the tables of `key_maps`
    the authors' own            by timm's filters (the first files of ConvNeXt, Swin, DINOv2 and others)

Whether the result fits is decided by `load_exactly`, which lists what does not.
"""

import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from lensmith.errors import ModelError
from lensmith.training.models.key_maps import Naming

State = dict[str, Tensor]


def to_timm(model: nn.Module, state: Mapping[str, Tensor], naming: Naming) -> State:
    """Rename the tensors of another library's network.

    Attention's query, key and value become timm's one matrix. Tensors that timm has in another shape of the same order
    (a linear layer as a 1×1 convolution) get that shape. Where BatchNorm's epsilon differs, the difference goes into
    the running variance.

    Args:
        model: the timm model that they are meant for.
        state: tensors by name, of any float dtype.
        naming: naming of the tensors.

    Returns:
        The tensors under timm's names and in timm's shapes; a name without a rule is unchanged.
    """
    renamed = {naming.rename(key): value for key, value in state.items()}
    if naming.in_order:
        renamed = _named_in_order(model, renamed)
    used = {key: value for key, value in renamed.items() if not re.match(naming.unused, key)}
    fitting = _shaped(model, _fused(used))
    if naming.epsilon is not None:
        _move_epsilon(model, fitting, naming.epsilon(state))
    return fitting


def apply_timm_filter(model: nn.Module, state: State) -> tuple[State, list[str]]:
    """Convert names of a network's authors, and positions of another image size, with timm's filter for its family.

    Args:
        model: a timm model.
        state: tensors by name, of any float dtype; those that fit already are unchanged.

    Returns:
        The tensors in the model's names and shapes, and the names of those that were resampled.
    """
    own = model.state_dict()
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None or all(key in state and state[key].shape == own[key].shape for key in own):
        return state, []
    patches = "patch_embed.proj.weight"
    if patches in own and patches in state and state[patches].shape[2:] != own[patches].shape[2:]:
        return state, []  # timm would resample these as well, but patches of another size are another architecture
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from torch, about how timm calls it
            converted: State = convert(dict(state), model)
    except Exception:  # filters raise anything at names that they were not written for
        return state, []
    return converted, [key for key, value in converted.items() if key in state and value.numel() != state[key].numel()]


def check(model: Any, naming: Naming, config: Mapping[str, Any], where: str) -> None:
    """Refuse weights that would load but compute something else, where no tensor's shape shows the difference.

    Args:
        model: the timm model.
        naming: naming of the weights.
        config: transformers' config.json; empty where there is none.
        where: origin of the weights, for error messages.

    Raises:
        ModelError: the number of attention heads, the activation or the layers with strides differ, or the model pads
            as TensorFlow does (timm's `tf_` models, whose images are shifted by a pixel).
    """
    if naming.library == "torchvision" and any(isinstance(module, Conv2dSame) for module in model.modules()):
        name = model.pretrained_cfg["architecture"]
        raise ModelError(
            f"A backbone that pads as {naming} does was expected for {where}.",
            f"{name} pads as TensorFlow does.",
            f"Give --model {name.removeprefix('tf_')}.",
        )
    facts = dict(naming.config)
    attention: Any = getattr(model.blocks[0], "attn", None) if hasattr(model, "blocks") else None
    if naming.family == "ViT" and hasattr(attention, "num_heads"):
        facts["num_attention_heads"] = attention.num_heads
    for name, here in facts.items():
        if config.get(name, here) != here:
            raise ModelError(
                f"Weights of a network with {name} {here} were expected in {where}.",
                f"Its config.json says {config[name]}.",
                "Choose another backbone; `lensmith models` lists them.",
            )


def epsilon_note(model: nn.Module, config: Mapping[str, Any]) -> str:
    """A note that timm's epsilon of LayerNorm is used, where transformers' config.json has another one; else empty."""
    theirs = config.get("layer_norm_eps")
    ours = {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)}
    if theirs is None or ours <= {theirs}:
        return ""
    return f"LayerNorm epsilon {max(ours):g} instead of {theirs:g}"


def images_of(naming: Naming, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """`mean` and `std` of the images that published weights were trained on, where tensor names show the library.

    Args:
        naming: naming of the weights.
        state: tensors by name, of any dtype and shape.
    """
    if naming.library != "torchvision":
        return {}
    if naming.family == "EfficientNetV2" and len(state.get("features.0.1.weight", ())) == 32:  # the large one alone
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _fused(state: State) -> State:
    """Concatenate `X.q`, `X.k` and `X.v` (D, D) to `X.qkv` (3 D, D)."""
    fused = {}
    for key, value in state.items():
        part = re.fullmatch(r"(.+\.attn\.)([qkv])(\..+)", key)
        three = [f"{part[1]}{letter}{part[3]}" for letter in "qkv"] if part else []
        if part is None or any(name not in state for name in three):
            fused[key] = value
        elif part[2] == "q":
            fused[f"{part[1]}qkv{part[3]}"] = torch.cat([state[name] for name in three])
    return fused


def _shaped(model: nn.Module, state: State) -> State:
    """Tensors in the model's shapes; only where the first axis is as long, as the order would be another one else."""
    own = model.state_dict()
    shaped = {}
    for key, value in state.items():
        wanted = own[key].shape if key in own else value.shape
        same = value.numel() == wanted.numel() and value.shape[:1] == wanted[:1]
        shaped[key] = value.reshape(wanted) if same else value
    return shaped


def _move_epsilon(model: nn.Module, state: State, epsilon: float) -> None:
    # (x - mean) / √(variance + epsilon): a larger variance has the effect of a larger epsilon. An epsilon set on the
    # module would be lost when the network is built again from a checkpoint.
    for name, module in model.named_modules():
        key = f"{name}.running_var"
        if isinstance(module, nn.BatchNorm2d) and key in state:
            state[key] = (state[key].float() + epsilon - module.eps).clamp(min=0)


def _named_in_order(model: nn.Module, state: State) -> State:
    """Give layers the names of the model's layers, in the order of their numbers, the classifier last.

    Where a layer has other tensors than its counterpart, this is another architecture, and all names are unchanged.
    """

    def layers(names: Iterable[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for name in names:
            layer, _, kind = name.rpartition(".")
            found[layer].add(kind)
        return found

    def place(layer: str) -> tuple[bool, str]:  # files may be in alphabetical order, which has 10 before 2
        return layer.startswith("classifier"), re.sub(r"\d+", lambda number: number[0].zfill(4), layer)

    theirs, ours = layers(state), layers(model.state_dict())
    pairs = dict(zip(sorted(theirs, key=place), ours, strict=False))
    if any((theirs[layer] ^ ours[name]) - {"num_batches_tracked"} for layer, name in pairs.items()):
        return state
    parts = ((key.rpartition("."), value) for key, value in state.items())
    return {f"{pairs.get(layer, layer)}.{kind}": value for (layer, _, kind), value in parts}
