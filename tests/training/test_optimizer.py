"""Every parameter is in one group, in the same one whatever is frozen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lensmith.config import TrainSettings
from lensmith.training import optimizer
from lensmith.training.models import backbone
from lensmith.training.schedule import TrainingSchedule

MODELS = ("test_resnet", "test_efficientnet", "test_vit")


def settings(**changes: Any) -> TrainSettings:
    values = {"data": Path("photos"), "model": "test_resnet", "pretrained": False, "image_size": 32, "lr": 0.01}
    return TrainSettings.model_validate({**values, "weight_decay": 0.05, "backbone_lr_ratio": 0.1, **changes})


def made(chosen: TrainSettings) -> tuple[backbone.Network, torch.optim.Optimizer]:
    network = backbone.build(chosen, 3)
    return network, optimizer.build(network, chosen)


def names(model: nn.Module, built: torch.optim.Optimizer) -> list[list[str]]:
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[name_of[id(parameter)] for parameter in group["params"]] for group in built.param_groups]


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_in_one_group(model: str) -> None:
    network, built = made(settings(model=model))
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


def ratios(**changes: Any) -> list[float]:
    """Each stage's peak rate as a share of the head's, the head first."""
    network, built = made(settings(head_epochs=0, warmup=0, **changes))
    plan = TrainingSchedule.of(settings(epochs=4, head_epochs=0, warmup=0, **changes), 40, len(network.stages) - 1)
    optimizer.set_rates(built, plan, 3)
    shown = max(group["lr"] for group in built.param_groups if group["stage"] == 0)
    assert shown == pytest.approx(0.01 * plan.rate(3, stage=0))
    of_group = {group["stage"]: group["lr"] / shown for group in built.param_groups}
    for group, members in zip(built.param_groups, names(network.model, built), strict=True):
        assert set(members) <= set(network.stages[group["stage"]])
        assert group["lr"] == of_group[group["stage"]] * shown
    return [of_group[stage] for stage in range(len(network.stages))]


def test_the_backbone_learns_at_its_share_of_the_head_s_rate() -> None:
    assert ratios() == pytest.approx([1, 0.1, 0.1, 0.1, 0.1, 0.1])


def test_layer_wise_rates_fall_geometrically_from_the_last_stage_to_the_first() -> None:
    assert ratios(first_lr_ratio=0.001) == pytest.approx([1, 0.1, 10**-1.5, 0.01, 10**-2.5, 0.001])
    # timm does not divide this one, so its only stage is the last
    chosen = settings(first_lr_ratio=0.001)
    assert optimizer.peak(chosen, 1, last=1) == pytest.approx(0.1 * chosen.lr)


def test_a_plateau_lowers_every_rate() -> None:
    network, built = made(settings())
    plan = TrainingSchedule.of(settings(head_epochs=0), 40, len(network.stages) - 1)
    optimizer.set_rates(built, plan, 3)
    before = [group["lr"] for group in built.param_groups]
    optimizer.set_rates(built, plan, 3, factor=0.1)
    assert [group["lr"] for group in built.param_groups] == pytest.approx([0.1 * rate for rate in before])


def test_a_stage_that_never_learns_has_no_rate() -> None:
    chosen = settings(trainable_stages=1, head_epochs=0)
    network, built = made(chosen)
    optimizer.set_rates(built, TrainingSchedule.of(chosen, 40, len(network.stages) - 1), 3)
    assert {group["stage"] for group in built.param_groups if group["lr"]} == {0, 1}


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_freezing_changes_no_layout_so_a_checkpoint_fits_in_every_phase(kind: str) -> None:
    layouts, states = [], []
    for trainable in (0, 1, None):
        network, built = made(settings(optimizer=kind))
        network.freeze(trainable, statistics=True)
        layouts.append(names(network.model, built))
        network.model(torch.zeros(2, 3, 32, 32)).sum().backward()
        built.step()
        states.append(built.state_dict())
    assert layouts[0] == layouts[1] == layouts[2]
    assert len(states[0]["state"]) == 2 < len(states[1]["state"]) < len(states[2]["state"])
    _, thawed = made(settings(optimizer=kind))
    thawed.load_state_dict(states[0])


def test_settings_reach_the_optimizer() -> None:
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    built = {name: made(settings(optimizer=name, momentum=0.7))[1] for name in kinds}
    assert {name: type(one) for name, one in built.items()} == kinds
    assert {(group["momentum"], group["nesterov"]) for group in built["sgd"].param_groups} == {(0.7, False)}
    # Fused kernels move all weights together or not at all.
    assert {group["fused"] for one in built.values() for group in one.param_groups} == {True}
