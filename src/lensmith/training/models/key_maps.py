"""Key maps: tensor names of torchvision and transformers → those of timm, one table for each family of networks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class Naming:
    """How one library names the tensors of one family of networks.

    Attributes:
        library: `torchvision` or `transformers`.
        family: name of the family in that library.
        sign: patterns that each match the whole name of some tensor here, and of none in the namings after it.
        rules: substitutions (`re.sub`) that make timm's name, applied one after the other.
        unused: pattern that, after the rules, matches the beginning of tensors not needed for classification.
        block: pattern of a layer in a block whose layers are numbered; its groups are the block and the layer.
        activation: activation of timm's network, by its name in transformers' config.json.
        epsilon: function from a state dict to BatchNorm's epsilon, where that may differ from timm's.
    """

    library: str
    family: str
    sign: tuple[str, ...]
    rules: tuple[Rule, ...]
    unused: str = "(?!)"
    block: str = ""
    activation: str | None = None
    epsilon: Callable[[Mapping[str, Tensor]], float] | None = None

    def __str__(self) -> str:
        return f"{self.family} in {self.library}"

    def rename(self, key: str) -> str:
        """timm's name for `key`, which is unchanged where no rule matches."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key


def _stage(odd: str, even: str) -> Callable[[re.Match[str]], str]:
    """Rule for torchvision's ConvNeXt and Swin, which number stages (odd) and downsampling (even) consecutively."""

    def name(found: re.Match[str]) -> str:
        number = int(found[1])
        return odd.format(number // 2) if number % 2 else even.format(number // 2)

    return name


def _efficientnet_epsilon(state: Mapping[str, Tensor]) -> float:
    """BatchNorm's epsilon, which differs between B0 to B4 and larger ones, which end in 2048 channels or more."""
    last = state.get("features.8.1.weight")
    return 1e-3 if last is not None and len(last) >= 2048 else 1e-5


def is_efficientnet_v2_large(naming: Naming, state: Mapping[str, Tensor]) -> bool:
    """Whether this is the one network of torchvision that was not trained with ImageNet's mean and standard deviation.

    Args:
        naming: naming of the tensors.
        state: tensors by name, of any dtype and shape.
    """
    first = state.get("features.0.1.weight")
    return naming is TORCHVISION_EFFICIENTNET_V2 and first is not None and len(first) == 32


_LAYER = r"(\d+(?:\.\d+|\.fc[12])?)"
_STEM_AND_LAST: tuple[Rule, ...] = (
    (r"^features\.0\.0\.", "conv_stem."),
    (r"^features\.0\.1\.", "bn1."),
    (r"^features\.\d+\.0\.", "conv_head."),
    (r"^features\.\d+\.1\.", "bn2."),
    (r"^classifier\.1\.", "classifier."),
)

TORCHVISION_VIT = Naming(
    "torchvision", "ViT", (r"encoder\.pos_embedding",),
    (
        (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),  # the published files have linear_1 and linear_2
        (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.head\.", "head."),
    ),
)  # fmt: skip
TORCHVISION_SWIN = Naming(
    "torchvision", "Swin", (r"features\.1\.0\.attn\.relative_position_bias_table",),
    (
        (r"^features\.0\.0\.", "patch_embed.proj."),
        (r"^features\.0\.2\.", "patch_embed.norm."),
        (r"^features\.(\d+)\.(?=\d)", _stage("layers.{}.blocks.", "")),
        (r"^features\.(\d+)\.(?=\D)", _stage("", "layers.{}.downsample.")),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
        (r"^head\.", "head.fc."),
    ),
    unused=r".+\.relative_position_index$",
)  # fmt: skip
TORCHVISION_CONVNEXT = Naming(
    "torchvision", "ConvNeXt", (r"features\.1\.0\.layer_scale",),
    (
        (r"^features\.0\.", "stem."),
        (r"^features\.(\d+)\.", _stage("stages.{}.blocks.", "stages.{}.downsample.")),
        (r"\.layer_scale$", ".gamma"),
        (r"\.block\.0\.", ".conv_dw."),
        (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".mlp.fc1."),
        (r"\.block\.5\.", ".mlp.fc2."),
        (r"^classifier\.0\.", "head.norm."),
        (r"^classifier\.2\.", "head.fc."),
    ),
)  # fmt: skip
TORCHVISION_MOBILENET_V2 = Naming(
    "torchvision", "MobileNetV2", (r"features\.1\.conv\.0\.0\.weight",), _STEM_AND_LAST,
    block=r"(features\.\d+)\.conv\." + _LAYER,
)  # fmt: skip
TORCHVISION_MOBILENET_V3 = Naming(
    "torchvision", "MobileNetV3", (r"features\.1\.block\.0\.0\.weight",),
    (*_STEM_AND_LAST[:2], (r"^classifier\.0\.", "conv_head."), (r"^classifier\.3\.", "classifier.")),
    block=r"(features\.[1-9]\d*)\.(?:block\.)?" + _LAYER,
    epsilon=lambda state: 1e-3,
)  # fmt: skip
TORCHVISION_EFFICIENTNET = Naming(
    "torchvision", "EfficientNet", (r"features\.1\.0\.block\.1\.fc1\.weight",), _STEM_AND_LAST,
    block=r"(features\.\d+\.\d+)\.block\." + _LAYER,
    epsilon=_efficientnet_epsilon,
)  # fmt: skip
TORCHVISION_EFFICIENTNET_V2 = Naming(
    "torchvision", "EfficientNetV2", (r"features\.1\.0\.block\.0\.0\.weight",), _STEM_AND_LAST,
    block=r"(features\.\d+\.\d+)\.block\." + _LAYER,
    epsilon=lambda state: 1e-3,
)  # fmt: skip
TORCHVISION_VGG = Naming(
    "torchvision", "VGG", (r"features\.0\.weight", r"classifier\.0\.weight"),
    (
        (r"^classifier\.0\.", "pre_logits.fc1."),
        (r"^classifier\.3\.", "pre_logits.fc2."),
        (r"^classifier\.6\.", "head.fc."),
    ),
)  # fmt: skip

TORCHVISION_DENSENET = Naming(  # of published files; what torchvision saves today has timm's names
    "torchvision", "DenseNet", (r"features\.denseblock1\.denselayer1\.norm\.1\.weight",),
    ((r"\.(norm|conv)\.([12])\.", r".\1\2."),),
)  # fmt: skip

_TRANSFORMERS_BLOCK: tuple[Rule, ...] = (
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
TRANSFORMERS_VIT = Naming(
    "transformers", "ViT", (r"(vit\.)?embeddings\.cls_token",),
    (
        (r"^vit\.", ""),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
        (r"\.attention\.(attention\.)?(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
        *_TRANSFORMERS_BLOCK,
        (r"^classifier\.", "head."),
    ),
    unused=r"pooler\.|decoder\.|embeddings\.mask_token$",
    activation="gelu",
)  # fmt: skip
TRANSFORMERS_SWIN = Naming(
    "transformers", "Swin", (r"(swin\.)?embeddings\.patch_embeddings\.projection\.weight",),
    (
        (r"^swin\.", ""),
        (r"^embeddings\.norm\.", "patch_embed.norm."),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^encoder\.layers\.(\d+)\.blocks\.", r"layers.\1.blocks."),
        # Downsampling belongs to the end of a stage there, and to the beginning of the next one here.
        (r"^encoder\.layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample."),
        (r"\.attention\.(self\.)?(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
        (r"\.attention\.(self|relative_position_bias)\.relative_position_", ".attn.relative_position_"),
        *_TRANSFORMERS_BLOCK,
        (r"^classifier\.", "head.fc."),
    ),
    unused=r".+\.relative_position_index$|pooler\.|decoder\.|embeddings\.mask_token$",
    activation="gelu",
)  # fmt: skip
TRANSFORMERS_CONVNEXT = Naming(
    "transformers", "ConvNeXT", (r"(convnext\.)?embeddings\.patch_embeddings\.weight",),
    (
        (r"^convnext\.", ""),
        (r"^embeddings\.patch_embeddings\.", "stem.0."),
        (r"^embeddings\.layernorm\.", "stem.1."),
        (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
        (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
        (r"\.layer_scale_parameter$", ".gamma"),
        (r"\.dwconv\.", ".conv_dw."),
        (r"(?<=\d)\.layernorm\.", ".norm."),
        (r"\.pwconv([12])\.", r".mlp.fc\1."),
        (r"^layernorm\.", "head.norm."),
        (r"^classifier\.", "head.fc."),
    ),
    activation="gelu",
)  # fmt: skip
TRANSFORMERS_RESNET = Naming(
    "transformers", "ResNet", (r"(resnet\.)?embedder\.embedder\.convolution\.weight",),
    (
        (r"^resnet\.", ""),
        (r"^embedder\.embedder\.convolution\.", "conv1."),
        (r"^embedder\.embedder\.normalization\.", "bn1."),
        (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", lambda found: f"layer{int(found[1]) + 1}.{found[2]}."),
        (r"\.layer\.(\d+)\.convolution\.", lambda found: f".conv{int(found[1]) + 1}."),
        (r"\.layer\.(\d+)\.normalization\.", lambda found: f".bn{int(found[1]) + 1}."),
        (r"\.shortcut\.convolution\.", ".downsample.0."),
        (r"\.shortcut\.normalization\.", ".downsample.1."),
        (r"^classifier\.1\.", "fc."),
    ),
    activation="relu",
)  # fmt: skip

NAMINGS = (
    TORCHVISION_VIT, TORCHVISION_SWIN, TORCHVISION_CONVNEXT, TORCHVISION_MOBILENET_V2, TORCHVISION_MOBILENET_V3,
    TORCHVISION_EFFICIENTNET, TORCHVISION_EFFICIENTNET_V2, TORCHVISION_VGG, TORCHVISION_DENSENET, TRANSFORMERS_VIT,
    TRANSFORMERS_SWIN, TRANSFORMERS_CONVNEXT, TRANSFORMERS_RESNET,
)  # fmt: skip
"""All namings, in the order in which they are tried. torchvision's ResNet has timm's names and needs no table."""


def recognise(state: Mapping[str, Tensor]) -> Naming | None:
    """The naming of a state dict, tensors of any dtype and shape by name; None for timm's own and unknown names."""
    return next((naming for naming in NAMINGS if _has(state, naming.sign)), None)


def _has(state: Mapping[str, Tensor], sign: tuple[str, ...]) -> bool:
    return all(any(re.fullmatch(pattern, key) for key in state) for pattern in sign)


def lite0_key(key: str) -> str:
    """timm's name for a tensor of EfficientNet-Lite0 in EfficientNet-PyTorch."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(.+)", key)
    if block is None:
        layer, _, rest = key.partition(".")
        return f"{_OUTSIDE_BLOCKS[layer]}.{rest}"
    number, layer, rest = int(block[1]), block[2], block[3]
    stage, index = next((s, number - first) for s, first in reversed(list(enumerate(_STAGE_STARTS))) if number >= first)
    # The first block does not widen its input, so it lacks one convolution, and timm numbers the others from there.
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
