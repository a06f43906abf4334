"""Networks of torchvision and transformers answer as before once their tensors are in timm's model."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vgg import ConvMlp
from torch import Tensor, nn
from torchvision import models as tv

from lensmith.config import TrainSettings
from lensmith.errors import ModelError
from lensmith.training.models import backbone, convert_weights, weights
from lensmith.training.models.key_maps import recognise

CLASSES = 5


def randomised(model: nn.Module) -> nn.Module:
    """Every tensor, BatchNorm's statistics and layer scales too, gets values that show where it went."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.01, 1, generator=generator)  # small enough that an epsilon of 0.001 matters
        elif value.is_floating_point():
            flat = value.ndim <= 1 or "scale" in name
            centre, spread = (1.0, 0.2) if flat and "bias" not in name else (0.0, 0.2)
            if not flat and not name.endswith(("table", "token", "embedding", "embeddings")):
                spread = 1 / math.sqrt(value[0].numel())
            value.normal_(centre, spread, generator=generator)
    return model.eval()


def difference(first: Tensor, second: Tensor) -> float:
    """The largest, as a share of the largest value."""
    assert first.shape == second.shape
    assert first.isfinite().all()
    return float((first - second).abs().max() / first.abs().max())


def answers_alike(theirs: nn.Module, ours: nn.Module, size: int) -> float:
    # In float64, so that what is left is a difference of the networks and not of rounding.
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        expected = theirs.double().eval()(pictures)
        return difference(getattr(expected, "logits", expected), ours.double().eval()(pictures))


def put(folder: Path, model: nn.Module) -> Path:
    save_file(model.state_dict(), folder / "theirs.safetensors")
    return folder / "theirs.safetensors"


def small_vgg() -> Any:
    model = tv.VGG(tv.vgg.make_layers(tv.vgg.cfgs["A"], batch_norm=False), init_weights=False)
    model.classifier = nn.Sequential(
        nn.Linear(512 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)
    )
    return model


def small_timm_vgg() -> Any:
    with torch.device("meta"):  # of the real one's 133 million parameters, 124 go
        model = timm.create_model("vgg11", num_classes=CLASSES)
        model.pre_logits = ConvMlp(512, 16, 7, act_layer=nn.ReLU, conv_layer=nn.Conv2d)
        model.head.fc = nn.Linear(16, CLASSES)
    return model.to_empty(device="cpu")


def small_convnext() -> Any:
    block = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([block(8, 16, 2), block(16, 24, 1), block(24, 32, 2), block(32, None, 1)], num_classes=CLASSES)


def small_swin() -> Any:
    return tv.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=CLASSES)


def small_vit() -> Any:
    return tv.VisionTransformer(32, 8, 2, 4, 48, 96, num_classes=CLASSES)


SMALL_TIMM: dict[str, Callable[[], Any]] = {
    "vgg": small_timm_vgg,
    "convnext": lambda: timm.create_model(
        "convnext_tiny", depths=(2, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=CLASSES
    ),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 4), num_classes=CLASSES,
    ),
    "vit": lambda: timm.create_model(
        "vit_base_patch16_224",
        img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2, num_classes=CLASSES,
    ),
    "resnet": lambda: timm.create_model("resnet50", layers=(1, 1, 2, 1), num_classes=CLASSES),
}  # fmt: skip
"""timm's networks, cut down to the shape of the small ones below."""


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [("vgg", small_vgg, 64), ("convnext", small_convnext, 64), ("swin", small_swin, 32), ("vit", small_vit, 32)],
)
def test_a_small_network_of_torchvision_answers_as_before(
    tmp_path: Path, name: str, make: Callable[[], nn.Module], size: int
) -> None:
    theirs, ours = randomised(make()), SMALL_TIMM[name]()
    origin = weights.load_custom(ours, put(tmp_path, theirs))
    assert re.search(r"names of \w+ in torchvision", origin)
    assert origin.endswith("mean 0.485 0.456 0.406, std 0.229 0.224 0.225")
    assert ours.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)
    assert answers_alike(theirs, ours, size) < 1e-6


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100"),  # the quickest, of which BatchNorm's epsilon differs
        pytest.param("resnet18", "resnet18", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", "mobilenetv2_100", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_torchvision_answers_as_before(tmp_path: Path, theirs: str, ours: str) -> None:
    model, mine = randomised(getattr(tv, theirs)()), timm.create_model(ours)
    weights.load_custom(mine, put(tmp_path, model))
    assert answers_alike(model, mine, 64) < 1e-4


FITTING = {
    "wide_resnet50_2": "wide_resnet50_2", "densenet121": "densenet121", "vgg16_bn": "vgg16_bn",
    "efficientnet_b4": "efficientnet_b4", "efficientnet_b5": "efficientnet_b5",
    "efficientnet_v2_s": "efficientnetv2_s", "efficientnet_v2_l": "efficientnetv2_l",
    "convnext_small": "convnext_small", "swin_b": "swin_base_patch4_window7_224",
    "vit_b_32": "vit_base_patch32_224", "vit_h_14": "vit_huge_patch14_224",
}  # fmt: skip
"""torchvision → timm: larger networks of the families that are compared by value."""


@pytest.mark.slow
@pytest.mark.parametrize("theirs", FITTING)
def test_every_tensor_of_a_larger_one_has_its_place(theirs: str) -> None:
    with torch.device("meta"):
        model, ours = getattr(tv, theirs)(), timm.create_model(FITTING[theirs], num_classes=1000)
    state, naming = model.state_dict(), recognise(model.state_dict())
    renamed = convert_weights.to_timm(ours, state, naming) if naming else state
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert {key: value.shape for key, value in renamed.items()} == shapes
    if naming and naming.epsilon:
        assert {naming.epsilon(state)} == {each.eps for each in model.modules() if isinstance(each, nn.BatchNorm2d)}
    published = [entry.transforms() for entry in tv.get_model_weights(theirs) if entry.name.startswith("IMAGENET1K_V")]
    images = convert_weights.images_of(naming, state) if naming else {}
    assert all(list(images.get(name, getattr(how, name))) == getattr(how, name) for how in published for name in images)


def test_the_older_names_of_published_files_are_known(tmp_path: Path) -> None:
    vit, densenet = randomised(small_vit()), randomised(tv.DenseNet(4, (2, 2, 2, 2), 8, 2, num_classes=CLASSES))
    older = {re.sub(r"mlp\.([03])", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}", key): value
             for key, value in vit.state_dict().items()}  # fmt: skip
    torch.save(older, tmp_path / "vit.pth")
    weights.load_custom(ours := SMALL_TIMM["vit"](), tmp_path / "vit.pth")
    assert answers_alike(vit, ours, 32) < 1e-6
    older = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", key): value for key, value in densenet.state_dict().items()}
    torch.save(older, tmp_path / "densenet.pth")
    small = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "bn_size": 2}
    ours = timm.create_model("densenet121", **small, num_classes=CLASSES)
    weights.load_custom(ours, tmp_path / "densenet.pth")
    assert answers_alike(densenet, ours, 64) < 1e-6


def test_the_names_that_convnexts_authors_gave_are_left_to_timm(tmp_path: Path) -> None:
    trained, ours = SMALL_TIMM["convnext"](), SMALL_TIMM["convnext"]()
    state = randomised(trained).state_dict()
    for theirs, timms in (
        ("downsample_layers.0.", "stem."), (r"downsample_layers.\1.", r"stages\.(\d)\.downsample\."),
        (r"stages.\1.", r"stages\.(\d)\.blocks\."), ("dwconv", "conv_dw"), (r"pwconv\1", r"mlp\.fc([12])"),
        ("norm.", r"^head\.norm\."), ("head.", r"^head\.fc\."),
    ):  # fmt: skip
        state = {re.sub(timms, theirs, key): value for key, value in state.items()}
    assert "stages.0.0.pwconv1.weight" in state
    torch.save({"model": state}, tmp_path / "convnext.pth")
    weights.load_custom(ours, tmp_path / "convnext.pth")
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in trained.state_dict().items())


@pytest.mark.parametrize(
    ("make", "ours", "words"),
    [
        (tv.efficientnet_b0, "tf_efficientnet_b0", r"pads as EfficientNet in .* Give --model efficientnet_b0\."),
        (
            tv.mobilenet_v3_small,
            "mobilenetv3_small_050",
            r"names of MobileNetV3 in torchvision\)\. .* of another shape",
        ),
        (tv.mobilenet_v2, "mobilenetv3_small_050", r"missing \(conv_stem\.weight.* of another name \(features\."),
        (small_swin, "test_resnet", r"names of Swin in torchvision.*missing \(conv1.0.weight.* and \d+ more\)"),
    ],
)
def test_another_network_of_torchvision_is_refused(
    tmp_path: Path, make: Callable[[], nn.Module], ours: str, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        weights.load_custom(timm.create_model(ours), put(tmp_path, make()))


HF: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": (
        "ViT",
        {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
         "image_size": 32, "patch_size": 8},
        32,
    ),
    "resnet": ("ResNet", {"depths": [1, 1, 2, 1]}, 64),
    "convnext": ("ConvNext", {"depths": [2, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]}, 64),
    "swin": (
        "Swin",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        32,
    ),
}  # fmt: skip


def transformer(name: str, kind: str = "ForImageClassification", **changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    family, config, _ = HF[name]
    made = getattr(transformers, f"{family}Config")(**{**config, "num_labels": CLASSES, **changes})
    return randomised(getattr(transformers, f"{family}{kind}")(made))


def saved(folder: Path, model: Any, images: dict[str, Any] | None = None) -> Path:
    model.save_pretrained(folder)
    if images is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return folder


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "folder") for name in HF), *((name, "names in memory") for name in HF), ("vit", "bin")]
)
def test_a_network_of_transformers_answers_as_before(tmp_path: Path, name: str, form: str) -> None:
    theirs, ours = transformer(name), SMALL_TIMM[name]()
    path = saved(tmp_path, theirs)
    if form == "bin":  # as repositories of the years before safetensors
        torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
    elif form == "names in memory":  # other ones than those that save_pretrained writes
        path /= "own.pth"
        torch.save(theirs.state_dict(), path)
    origin = weights.load_custom(ours, path)
    assert re.search(r"names of \w+ in transformers", origin)
    other_epsilon = form != "names in memory" and name in ("vit", "convnext")  # as their config.json says
    assert ("LayerNorm epsilon 1e-06 instead of 1e-12" in origin) == other_epsilon
    assert answers_alike(theirs, ours, HF[name][2]) < 1e-4


@pytest.mark.parametrize("name", HF)
def test_the_bare_network_of_transformers_lacks_the_head_alone(tmp_path: Path, name: str) -> None:
    ours = SMALL_TIMM[name]()
    said = weights.load_custom(ours, saved(tmp_path, transformer(name, "Model")))
    assert "head left out (" in said


def test_weights_in_several_files_are_put_together(tmp_path: Path) -> None:
    theirs, ours = transformer("vit"), SMALL_TIMM["vit"]()
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    weights.load_custom(ours, tmp_path)
    assert answers_alike(theirs, ours, 32) < 1e-4


def test_a_folders_mean_and_spread_reach_the_run(tmp_path: Path) -> None:
    images = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2, "size": {"height": 160}}
    timm_model = timm.create_model("test_vit")
    save_file(timm_model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    values = {"data": "photos", "model": "test_vit", "weights": tmp_path, "precision": "fp32"}
    network = backbone.build(TrainSettings.model_validate(values), 3)
    assert network.preprocessing.mean == (0.1, 0.2, 0.3)
    assert network.preprocessing.std == (0.4, 0.5, 0.6)
    assert network.preprocessing.interpolation == "bilinear"
    assert "mean 0.1 0.2 0.3, std 0.4 0.5 0.6, interpolation bilinear" in network.provenance


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 2}, "with num_attention_heads 4 .* says 2"),
        ({"hidden_act": "relu"}, "with hidden_act gelu .* says relu"),
        ({"qkv_bias": False}, r"2 missing \(blocks.0.attn.qkv.bias"),
    ],
)
def test_a_network_that_only_looks_alike_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        weights.load_custom(SMALL_TIMM["vit"](), saved(tmp_path, transformer("vit", **changes)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{", "JSON was expected"),
        ("preprocessor_config.json", '{"image_mean": [1, 2]}', r"Three numbers.*image_mean.*\[1, 2\]"),
        ("preprocessor_config.json", '{"image_std": [1, 2, 0]}', r"Three positive numbers"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../a.safetensors"}}', "names of files beside it"),
        ("index.md", "weights elsewhere", r"neither model\.safetensors nor pytorch_model\.bin"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "gone.safetensors"}}', r"gone\.safetensors\. There is"),
    ],
)
def test_a_damaged_folder_is_one_paragraph(tmp_path: Path, name: str, content: str, words: str) -> None:
    if "index" not in name:
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=words):
        weights.load_custom(timm.create_model("test_resnet"), tmp_path)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_positions_are_resampled_to_the_image_size_as_timm_does(tmp_path: Path, name: str) -> None:
    small = {} if name == "test_vit" else {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4)}
    theirs = randomised(timm.create_model(name, **small))
    sizes = {"img_size": 96} if name == "test_vit" else {"img_size": 96, "window_size": 3}
    ours = timm.create_model(name, **small, **sizes)
    said = weights.load_custom(ours, put(tmp_path, theirs))
    assert "resampled for the image size (" in said
    overlay = {"pretrained_cfg_overlay": {"state_dict": theirs.state_dict()}, "pretrained": True}
    expected = timm.create_model(name, **small, **sizes, **overlay).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_positions_of_transformers_are_resampled_too(tmp_path: Path) -> None:
    ours = timm.create_model(
        "vit_base_patch16_224", img_size=64, patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2
    )
    assert "resampled for the image size (pos_embed)" in weights.load_custom(ours, saved(tmp_path, transformer("vit")))


def test_patches_of_another_size_are_another_architecture(tmp_path: Path) -> None:
    path = put(tmp_path, timm.create_model("test_vit"))
    with pytest.raises(ModelError, match=r"another shape \(.*patch_embed"):
        weights.load_custom(timm.create_model("test_vit", patch_size=8), path)
