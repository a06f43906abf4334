"""Every parameter is in one group, in the same one whatever is frozen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.train import backbone, optimizer
from lensmith.train.recipe import Plan

MODELS = ("test_resnet", "test_efficientnet", "test_vit")


def settings(**changes: Any) -> TrainSettings:
    values = {"data": Path("photos"), "model": "test_resnet", "pretrained": False, "image_size": 32, "lr": 0.01}
    return TrainSettings.model_validate({**values, "weight_decay": 0.05, "backbone_lr_ratio": 0.1, **changes})


def made(chosen: TrainSettings) -> tuple[backbone.Network, torch.optim.Optimizer]:
    network = backbone.build(chosen, 3)
    return network, optimizer.build(network.model, network.head, chosen)


def names(model: nn.Module, built: torch.optim.Optimizer) -> list[list[str]]:
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[name_of[id(parameter)] for parameter in group["params"]] for group in built.param_groups]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_every_parameter_is_in_one_group(model: str, kind: str) -> None:
    network, built = made(settings(model=model, optimizer=kind))
    flat = [name for group in names(network.model, built) for name in group]
    assert len(flat) == len(set(flat))
    assert set(flat) == {name for name, _ in network.model.named_parameters()}


@pytest.mark.parametrize("model", MODELS)
def test_biases_and_normalisation_do_not_decay_and_weights_do(model: str) -> None:
    network, built = made(settings(model=model))
    parameters = dict(network.model.named_parameters())
    for group, members in zip(built.param_groups, names(network.model, built), strict=True):
        for name in members:
            assert group["weight_decay"] == (0.05 if parameters[name].ndim > 1 else 0.0)
            if name.endswith(".bias") or "norm" in name or ".bn" in name:
                assert group["weight_decay"] == 0


def test_the_backbone_learns_at_its_share_of_the_head_s_rate() -> None:
    network, built = made(settings())
    plan = Plan.of(settings(epochs=4, head_epochs=0, warmup=0), 40)
    shown = optimizer.set_rates(built, plan, 3)
    head = {name for name, _ in network.head.named_parameters(prefix="fc")}
    assert shown == pytest.approx(0.01 * plan.rate(3, backbone=False))
    for group, members in zip(built.param_groups, names(network.model, built), strict=True):
        assert set(members) <= head or not set(members) & head
        assert group["lr"] == pytest.approx(shown if set(members) <= head else 0.1 * shown)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_freezing_changes_no_layout_so_a_checkpoint_fits_in_every_stage(kind: str) -> None:
    layouts, states = [], []
    for frozen in (True, False):
        network, built = made(settings(optimizer=kind))
        network.freeze(frozen, statistics=True)
        layouts.append(names(network.model, built))
        network.model(torch.zeros(2, 3, 32, 32)).sum().backward()
        built.step()
        states.append(built.state_dict())
    assert layouts[0] == layouts[1]
    assert len(states[0]["state"]) == 2 < len(states[1]["state"])
    _, thawed = made(settings(optimizer=kind))
    thawed.load_state_dict(states[0])


def test_settings_reach_the_optimizer() -> None:
    _, sgd = made(settings(optimizer="sgd", momentum=0.7))
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.7}
    _, adamw = made(settings(optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
