"""Any timm backbone gets a new head; what is frozen stays as it is, to the bit."""

import copy
from collections import Counter
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import DropPath
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.errors import ModelError, SettingsError
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.dataloading.dataset import Batch
from lensmith.training.learner import Learner
from lensmith.training.models import backbone
from lensmith.training.schedule import Phase, TrainingSchedule

CLASSES = 3
HEAD, ALL = Phase("head", 0, 1, 0), Phase("all", 1, 2, None)


def settings(**changes: Any) -> TrainSettings:
    values = {"data": "photos", "model": "test_resnet", "pretrained": False, "image_size": 32, "batch_size": 4}
    return TrainSettings.model_validate({**values, "precision": "fp32", "lr": 0.01, "augment": "none", **changes})


def learner(chosen: TrainSettings) -> Learner:
    torch.manual_seed(0)
    network, labels = backbone.build(chosen, CLASSES), [str(number) for number in range(CLASSES)]
    counts = Counter(range(CLASSES))
    return Learner(network, chosen, network.preprocessing, labels, counts, torch.device("cpu"))


def batch(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % CLASSES
    return Batch(pictures, labels, torch.tensor([[0.0, 1, 1, 1]] * count), list(range(count)), [])


def learn(made: Learner, phase: Phase, steps: int = 4, count: int = 4) -> None:
    schedule = TrainingSchedule.of(made.settings, 40, len(made.network.stages) - 1)
    made.enter(phase)
    for step in range(steps):
        made.training_step(batch(count), schedule, (0 if phase is HEAD else 20) + step)


def changed(before: dict[str, Tensor], after: nn.Module) -> set[str]:
    return {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("phase", [HEAD, Phase("last 1", 1, 2, 1), ALL], ids=lambda phase: phase.name)
def test_what_is_frozen_stays_as_it_is_to_the_bit(phase: Phase, batch_norm: str, model: str) -> None:
    made = learner(settings(model=model, batch_norm=batch_norm))
    before = copy.deepcopy(made.model.state_dict())
    learn(made, phase)
    stages = made.network.stages[: None if phase.trainable is None else phase.trainable + 1]
    learning = {name for stage in stages for name in stage}
    moved = changed(before, made.model)
    assert {name for name in moved if "running" not in name and "num_batches" not in name} == learning
    drifting, normalised = ({module_of(name) for name in names if "running_mean" in name} for names in (moved, before))
    assert drifting == (normalised & {module_of(name) for name in learning} if batch_norm == "train" else set())


def module_of(name: str) -> str:
    return name.rpartition(".")[0]


def test_unfreezing_changes_no_answer() -> None:
    made = learner(settings())
    learn(made, HEAD)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        frozen = made.model(images)
        made.enter(ALL)
        assert torch.equal(made.model(images), frozen)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("phase", [HEAD, ALL], ids=lambda phase: phase.name)
def test_dropout_before_the_head_works_in_both_phases(model: str, phase: Phase) -> None:
    images = torch.rand(2, 3, 32, 32)
    for dropout, vary in ((0.5, True), (0.0, False)):
        made = learner(settings(model=model, dropout=dropout))
        made.enter(phase)
        with torch.no_grad():
            assert torch.equal(made.model(images), made.model(images)) != vary


MODELS = {
    # name: stages of the backbone, first parameters of its last stage and of its first
    "resnet18": (5, "layer4.", "conv1."),
    "tf_efficientnet_lite0": (8, "blocks.6.", "conv_stem."),
    "vit_base_patch16_224": (13, "blocks.11.", "cls_token"),
    "swin_tiny_patch4_window7_224": (5, "layers.3.", "patch_embed."),
    "convnext_tiny": (5, "stages.3.", "stem."),
    "vgg11": (8, "features.18.", "features.0."),
    "test_vit": (7, "blocks.5.", "cls_token"),
    "poolformer_s12": (1, "stem.", "stem."),  # timm does not divide it
}


@cache
def structure(model: str) -> backbone.Network:
    """A network without memory behind it, to be frozen in any way."""
    with torch.device("meta"):
        options = {} if model == "vgg11" else {"drop_path_rate": 0.1}
        made = timm.create_model(model, num_classes=CLASSES, **options)
    head = made.get_classifier()
    return backbone.Network(made, head, backbone.stages_of(made, head), Preprocessing(32), "random")


@pytest.mark.parametrize("model", MODELS)
def test_stages_are_counted_from_the_head_and_hold_every_parameter_once(model: str) -> None:
    network, (count, last, first) = structure(model), MODELS[model]
    names = [name for stage in network.stages for name in stage]
    assert sorted(names) == sorted(name for name, _ in network.model.named_parameters())
    assert len(network.stages) == count + 1
    assert network.stages[1][0].startswith(last)
    assert network.stages[-1][0].startswith(first)
    parameters = dict(network.model.named_parameters())
    assert {id(parameters[name]) for name in network.stages[0]} == {id(value) for value in network.head.parameters()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("trainable", [0, 1, 2, None])
def test_only_the_stages_that_learn_have_gradients_and_train(model: str, trainable: int | None) -> None:
    network = structure(model)
    network.freeze(trainable, statistics=False)
    learning = {name for stage in network.stages[: None if trainable is None else trainable + 1] for name in stage}
    assert {name for name, value in network.model.named_parameters() if value.requires_grad} == learning
    for name, module in network.model.named_modules():
        below = [f"{name}.{inner}".lstrip(".") for inner, _ in module.named_parameters()]
        if below:
            assert module.training == bool(learning & set(below)), name
    dropping = [module.training for module in network.model.modules() if isinstance(module, DropPath)]
    assert any(dropping) == (trainable != 0) or not dropping
    assert all(dropping) == (trainable is None) or len(network.stages) == 2 or not dropping


def test_frozen_statistics_stand_still_even_where_weights_learn() -> None:
    network = structure("resnet18")
    network.freeze(2, statistics=True)
    assert not any(module.training for module in network.model.modules() if isinstance(module, nn.BatchNorm2d))
    assert network.model.layer4[0].bn1.weight.requires_grad


def test_one_image_alone_is_learnt_from_though_it_has_no_statistics() -> None:
    made = learner(settings(batch_norm="train", batch_size=1))  # at 32 px the last layer sees one value a channel
    before = copy.deepcopy(made.model.state_dict())
    learn(made, ALL, count=1)
    moved = changed(before, made.model)
    assert "fc.weight" in moved
    assert not any("running" in name for name in moved)
    learn(made, ALL, count=4)
    assert any("running" in name for name in changed(before, made.model))


def test_an_unknown_name_comes_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"'resnet_18' is none.*resnet18"):
        backbone.build(settings(model="resnet_18"), CLASSES)


@pytest.mark.parametrize(("model", "size"), [("test_vit", 48), ("test_resnet.r160_in1k", 40)])
def test_the_image_size_is_the_one_that_was_said(model: str, size: int) -> None:
    network = backbone.build(settings(model=model, image_size=size), CLASSES)
    assert network.preprocessing.image_size == size
    assert network.model.eval()(torch.zeros(1, 3, size, size)).shape == (1, CLASSES)


@pytest.mark.parametrize(("model", "size"), [("test_vit", 50), ("edgenext_xx_small", 16)])
def test_an_image_size_that_the_backbone_cannot_take_is_refused_before_training(model: str, size: int) -> None:
    with pytest.raises(SettingsError, match=rf"size that {model} can take .* {size} arrived .*Leave --image-size out"):
        backbone.build(settings(model=model, image_size=size), CLASSES)


def test_every_size_of_a_run_is_tried_before_it_begins() -> None:
    network = backbone.build(settings(image_size=None, sizes=(32, 48)), CLASSES)
    assert network.preprocessing.image_size == 48
    with pytest.raises(
        SettingsError, match=r"size that vit_tiny_patch16_224 can take .* 32 arrived .*Leave --sizes out"
    ):
        backbone.build(settings(model="vit_tiny_patch16_224", image_size=None, sizes=(32, 48)), CLASSES)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "tf_efficientnet_lite0"])
def test_preprocessing_is_what_timm_says_of_the_weights(model: str) -> None:
    chosen = settings(model=model, image_size=None)
    network = timm.create_model(model, pretrained=False)
    how, timms = backbone.preprocessing_of(network, chosen), resolve_model_data_config(network)
    assert (3, how.image_size, how.image_size) == timms["input_size"]
    assert (how.mean, how.std) == (timms["mean"], timms["std"])
    assert (how.crop_fraction, how.interpolation) == (timms["crop_pct"], timms["interpolation"])
    assert backbone.preprocessing_of(network, settings(model=model, resize="squash")).crop_fraction == 1.0


def test_a_backbone_with_several_heads_is_refused() -> None:
    with pytest.raises(ModelError, match="one classification head"):
        backbone.build(settings(model="deit_tiny_distilled_patch16_224", image_size=None), CLASSES)


def test_the_trained_network_is_rebuilt_from_its_state() -> None:
    made = learner(settings(dropout=0.5))
    learn(made, ALL)
    rebuilt = backbone.rebuild(made.settings, CLASSES, made.model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    made.model.eval()
    with torch.no_grad():
        assert torch.allclose(rebuilt(images), made.model(images), atol=1e-5)
    assert not any(module.training for module in rebuilt.modules())
