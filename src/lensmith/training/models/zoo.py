"""Model zoo: the backbones that `--model` takes, their sizes, where their weights come from, and which to try first.

Listing builds no network. Parameter counts are in parameters.json (written by tools/count_parameters.py, since building
all networks takes minutes), input sizes and addresses in timm's own tables.
"""

import difflib
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch

from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.errors import ModelError
from lensmith.training.models.weights import source_of

COUNTED = Path(__file__).with_name("parameters.json")

ADVICE: dict[str, dict[str, str]] = {
    "edge": {
        "tf_efficientnet_lite0": "made for int8 chips: ReLU6, no squeeze-excite; 0.4 GMACs; weights come by pip",
        "mobilenetv4_conv_small": "0.2 GMACs of convolutions and ReLU alone, which any chip runs",
        "mobilenetv3_large_100": "0.2 GMACs; squeeze-excite and hard-swish lose more to int8 than the two above",
        "mobilenetv3_small_100": "0.06 GMACs, for when nothing else is quick enough; the least accurate here",
    },
    "cpu": {
        "tf_efficientnet_lite0": "0.4 GMACs, loses little as int8, and its weights come by pip",
        "mobilenetv4_conv_medium": "0.8 GMACs of plain convolutions: more accurate, at about resnet18's time",
        "resnet18": "1.8 GMACs of 3×3 convolutions, which every engine runs near its best",
        "resnet50": "4.1 GMACs: a step up in accuracy for about twice resnet18's time",
    },
    "gpu": {
        "resnet50": "4.1 GMACs of plain convolutions, any image size: the baseline that everybody knows",
        "convnext_tiny": "4.5 GMACs of convolutions alone, any image size; pretrained on ImageNet-12k",
        "swin_tiny_patch4_window7_224": "4.5 GMACs; attention in windows of 4-pixel patches, for fine detail",
        "vit_base_patch16_224": "17.6 GMACs of large matrix products for bf16 cores; pretrained on ImageNet-21k",
    },
}
"""Task → a few backbones to try first, best first, and the reason. GMACs are for one image of 224 px, as published."""

_ELSEWHERE = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_v2_s": "tf_efficientnetv2_s",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
}
"""torchvision's name → timm's, where they are not spelled alike."""


@dataclass(frozen=True)
class Backbone(Result):
    """An architecture that `--model` takes.

    Attributes:
        name: architecture, as timm names it.
        params_millions: parameters with the original head of (mostly) 1,000 classes, in millions.
        image_size: pixels a side that its default weights were trained at.
        source: `pip PACKAGE`, `hub REPOSITORY`, `url ADDRESS`, or `none`.
        on_this_machine: whether its weights need no download.
        family: name of timm's module that defines it.
        advice: reason to try it by task, where it is recommended for one.
    """

    name: str
    params_millions: float
    image_size: int
    source: str
    on_this_machine: bool
    family: str
    advice: dict[str, str]


def find(pattern: str = "*", max_params: float | None = None, suited: str | None = None) -> list[Backbone]:
    """Backbones by name, size and task.

    Args:
        pattern: a glob (`*lite*`), or a part of the name.
        max_params: most parameters, in millions.
        suited: `cpu`, `gpu` or `edge`: only the few recommended for it, best first.

    Returns:
        Those with weights on this machine first, then by parameters; with `suited`, in the order of the advice.

    Raises:
        ModelError: no backbone matches, or `suited` is no task.
    """
    if suited is not None and suited not in ADVICE:
        raise ModelError(f"A task was expected: {', '.join(ADVICE)}.", f"{suited!r} arrived.", "Name one of those.")
    glob = pattern.lower() if re.search(r"[*?\[]", pattern) else f"*{pattern.lower()}*"
    candidates = list(ADVICE[suited]) if suited else timm.list_models()
    # timm's own tests use the networks named `test_`.
    matching = [
        name for name in candidates if fnmatchcase(name, glob) and (not name.startswith("test_") or "test" in glob)
    ]
    unknown = [name for name in matching if name not in _counted()]
    counts = _counted() | {name: count_parameters(name) for name in track(unknown, "counting", len(unknown))}
    fitting = [name for name in matching if max_params is None or counts[name] <= max_params * 1e6]
    if not fitting:
        raise _nothing_fits(pattern, [counts[name] / 1e6 for name in matching], max_params, suited)
    found = [_describe(name, counts[name]) for name in fitting]
    if not suited:
        found.sort(key=lambda backbone: (not backbone.on_this_machine, backbone.params_millions, backbone.name))
    return found


def is_known(name: str) -> bool:
    """Whether `--model` takes this name; a tag (`resnet18.a1_in1k`) must be one of timm's."""
    architecture, _, tag = name.partition(".")
    return architecture in _architectures() and (not tag or name in timm.list_pretrained(f"{architecture}.*"))


def nearest(name: str) -> list[str]:
    """Up to three known names that resemble `name`, also as torchvision or Hugging Face spell it; best first."""
    plain = name.lower().rpartition("/")[2].rpartition(":")[2].partition(".")[0].replace("-", "_")
    exact = _ELSEWHERE.get(plain, plain)
    if exact in _architectures():
        return [exact]
    # Among names that are equally near (efficientnet_b0 … b8) the smallest network is the likeliest.
    near = difflib.get_close_matches(plain, _architectures(), n=20, cutoff=0.6)
    near.sort(key=lambda found: (-difflib.SequenceMatcher(a=found, b=plain).ratio(), _counted().get(found, 0)))
    return near[:3]


def count_parameters(name: str, **options: Any) -> int:
    """Number of parameters of a network that timm creates with these options, counted without allocating them."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, **options)
    return sum(parameter.numel() for parameter in model.parameters())


def _describe(name: str, parameters: int) -> Backbone:
    source = source_of(name)
    cfg = timm.get_pretrained_cfg(name)
    return Backbone(
        name=name,
        params_millions=round(parameters / 1e6, 2),
        image_size=cfg.input_size[-1],
        source=str(source),
        on_this_machine=source.file is not None,
        family=timm.model_entrypoint(name).__module__.rpartition(".")[2],
        advice={task: names[name] for task, names in ADVICE.items() if name in names},
    )


def _nothing_fits(pattern: str, sizes: list[float], max_params: float | None, suited: str | None) -> ModelError:
    expected = f"Backbones whose name fits {pattern!r} were expected{f' among those for {suited}' if suited else ''}."
    if sizes:
        return ModelError(
            expected,
            f"The smallest of {len(sizes)} has {min(sizes):.2f} million parameters, and {max_params:g} are allowed.",
            "Raise --max-params.",
        )
    near = nearest(pattern)
    return ModelError(
        expected,
        "There are none.",
        f"Did you mean {', '.join(near)}?" if near else "Give a part of the name, such as resnet, or a glob, *lite*.",
    )


@cache
def _architectures() -> frozenset[str]:
    return frozenset(timm.list_models())


@cache
def _counted() -> dict[str, int]:
    counted: dict[str, int] = json.loads(COUNTED.read_text())["parameters"]
    return counted
