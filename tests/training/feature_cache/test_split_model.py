"""A network comes apart before what learns, and the parts are the network to the bit."""

import pytest
import torch

from lensmith.config import TrainSettings
from lensmith.training.feature_cache import split_model
from lensmith.training.models import backbone
from lensmith.training.models.backbone import Network


def network(model: str, size: int = 32, **settings: object) -> Network:
    values = {"data": "photos", "model": model, "pretrained": False, "image_size": size, **settings}
    return backbone.build(TrainSettings.model_validate(values), 5)


FAMILIES = [
    ("test_resnet", 32, "layer4"),
    ("test_efficientnet", 32, "blocks.4"),
    ("test_vit", 160, "blocks.5"),
    ("test_convnext", 32, "stages.3"),
    ("mobilenetv3_small_050", 32, "blocks.5"),
    ("regnetx_002", 32, "s4"),
]


@pytest.mark.parametrize(("model", "size", "at"), FAMILIES, ids=lambda value: str(value))
def test_the_last_stage_and_the_head_can_be_trained_on_what_comes_before(model: str, size: int, at: str) -> None:
    made = network(model, size)
    made.freeze(1, statistics=True)
    found = split_model.find_split_point(made, 1, size)
    assert found is not None
    assert found.at == at
    images = torch.rand(3, 3, size, size)
    made.model.eval()
    with torch.no_grad():
        features = found.frozen_trunk(made.model)(images)
        assert tuple(features.shape[1:]) == found.shape
        assert torch.equal(found.trainable_tail(made.model)(features), made.model(images))


@pytest.mark.parametrize(
    ("model", "size"),
    [("test_resnet", 32), ("test_vit", 160), ("repvit_m0_9", 32), ("xcit_nano_12_p16_224", 224)],
)
def test_every_head_can_be_trained_alone(model: str, size: int) -> None:
    made = network(model, size)
    found = split_model.find_split_point(made, 0, size)
    assert found is not None
    assert len(found.shape) == 1


def test_gradients_of_the_tail_are_those_of_the_whole() -> None:
    made = network("test_resnet")
    made.freeze(2, statistics=True)
    found = split_model.find_split_point(made, 2, 32)
    assert found is not None
    images = torch.rand(4, 3, 32, 32)
    learning = [parameter for parameter in made.model.parameters() if parameter.requires_grad]
    whole = torch.autograd.grad(made.model(images).square().sum(), learning)
    with torch.no_grad():
        features = found.frozen_trunk(made.model)(images)
    tail = torch.autograd.grad(found.trainable_tail(made.model)(features).square().sum(), learning)
    assert all(map(torch.equal, tail, whole))


def test_dropout_is_in_the_tail() -> None:
    made = network("test_resnet", dropout=0.5)
    made.freeze(0, statistics=True)
    found = split_model.find_split_point(made, 0, 32, dropout=0.5)
    assert found is not None
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        features = found.frozen_trunk(made.model).eval()(images)
        assert not torch.equal(found.trainable_tail(made.model)(features), found.trainable_tail(made.model)(features))


def test_looking_for_a_split_point_changes_neither_modes_nor_random_numbers_nor_statistics() -> None:
    made = network("test_resnet")
    made.freeze(1, statistics=False)
    modes = [module.training for module in made.model.modules()]
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in made.model.state_dict().items()}
    split_model.find_split_point(made, 1, 32)
    assert [module.training for module in made.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in made.model.state_dict().items())


def test_where_everything_learns_or_a_network_does_not_come_apart_it_is_left_whole() -> None:
    made = network("test_resnet")
    assert split_model.find_split_point(made, None, 32) is None
    assert split_model.find_split_point(made, len(made.stages) - 1, 32) is None
    assert split_model.find_split_point(network("xcit_nano_12_p16_224", 224), 1, 224) is None
