"""Key maps: tensor names of torchvision and transformers → those of timm, one table for each family of networks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        in_order: whether the layers get timm's names by their order, which is that of the forward pass in both.
        unused: pattern that, after the rules, matches the beginning of tensors not needed for classification.
        config: values that transformers' config.json must have, if it names them, to describe timm's network.
        epsilon: function from a state dict to BatchNorm's epsilon, where that may differ from timm's.
    """

    library: str
    family: str
    sign: tuple[str, ...]
    rules: tuple[Rule, ...] = ()
    in_order: bool = False
    unused: str = "(?!)"
    config: Mapping[str, Any] = field(default_factory=dict)
    epsilon: Callable[[Mapping[str, Tensor]], float] | None = None

    def __str__(self) -> str:
        return f"{self.family} in {self.library}"

    def rename(self, key: str) -> str:
        """timm's name for `key`, which is unchanged where no rule matches."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key


_TRANSFORMERS_BLOCK: tuple[Rule, ...] = (
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
NAMINGS = (
    Naming(
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
    ),
    Naming(
        "torchvision", "Swin", (r"features\.1\.0\.attn\.relative_position_bias_table",),
        (
            (r"^features\.0\.0\.", "patch_embed.proj."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.(\d+)\.(?=\d)", lambda found: f"layers.{int(found[1]) // 2}.blocks."),
            (r"^features\.(\d+)\.(?=\D)", lambda found: f"layers.{int(found[1]) // 2}.downsample."),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
            (r"^head\.", "head.fc."),
        ),
        unused=r".+\.relative_position_index$",
    ),
    Naming(
        "torchvision", "ConvNeXt", (r"features\.1\.0\.layer_scale",), ((r"\.layer_scale$", ".gamma"),), in_order=True
    ),
    Naming("torchvision", "MobileNetV2", (r"features\.1\.conv\.0\.0\.weight",), in_order=True),
    Naming(
        "torchvision", "MobileNetV3", (r"features\.1\.block\.0\.0\.weight",), in_order=True,
        epsilon=lambda state: 1e-3,
    ),
    Naming(
        "torchvision", "EfficientNet", (r"features\.1\.0\.block\.1\.fc1\.weight",), in_order=True,
        # B5 to B7, which end in 2048 channels or more, have another one than the smaller networks.
        epsilon=lambda state: 1e-3 if len(state.get("features.8.1.weight", ())) >= 2048 else 1e-5,
    ),
    Naming(
        "torchvision", "EfficientNetV2", (r"features\.1\.0\.block\.0\.0\.weight",), in_order=True,
        epsilon=lambda state: 1e-3,
    ),
    Naming("torchvision", "VGG", (r"features\.0\.weight", r"classifier\.0\.weight"), in_order=True),
    Naming(  # of published files; what torchvision saves today has timm's names
        "torchvision", "DenseNet", (r"features\.denseblock1\.denselayer1\.norm\.1\.weight",),
        ((r"\.(norm|conv)\.([12])\.", r".\1\2."),),
    ),
    Naming(
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
        config={"hidden_act": "gelu"},
    ),
    Naming(
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
        config={"hidden_act": "gelu"},
    ),
    Naming(
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
        config={"hidden_act": "gelu"},
    ),
    Naming(
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
        config={"hidden_act": "relu", "downsample_in_bottleneck": False},
    ),
)  # fmt: skip
"""All namings, in the order in which they are tried. torchvision's ResNet has timm's names and needs no table."""


def recognise(state: Mapping[str, Tensor]) -> Naming | None:
    """The naming of a state dict, tensors of any dtype and shape by name; None for timm's own and unknown names."""
    for naming in NAMINGS:
        if all(any(re.fullmatch(pattern, key) for key in state) for pattern in naming.sign):
            return naming
    return None
