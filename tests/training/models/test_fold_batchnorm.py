"""BatchNorm that keeps its statistics is folded away without a trace."""

import pytest
import timm
import torch
from torch import Tensor, nn

from lensmith.training.models.fold_batchnorm import BatchNormFolding


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, num_classes=5)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return made.double()


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(model(images).square().sum(), list(model.parameters())))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "regnety_002"])
def test_answers_and_gradients_are_the_same(name: str) -> None:
    made = network(name).eval()
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64)
    plain, plain_gradients = made(images), gradients(made, images)
    folding = BatchNormFolding(made, 64)
    assert folding.fold() > 8
    assert torch.allclose(made(images), plain, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(made, images), plain_gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def test_the_state_dict_is_the_same_and_unfolding_leaves_nothing() -> None:
    made = network("test_resnet").eval()
    names, images = list(made.state_dict()), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    plain = made(images)
    folding = BatchNormFolding(made, 64)
    folding.fold()
    assert list(made.state_dict()) == names
    folding.unfold()
    assert not any("forward" in module.__dict__ for module in made.modules())
    assert torch.equal(made(images), plain)


def test_what_learns_its_statistics_is_not_folded() -> None:
    made = network("test_resnet")
    folding = BatchNormFolding(made, 64)
    assert folding.fold() == 0
    made.layer1.eval()
    assert folding.fold() == sum(isinstance(module, nn.BatchNorm2d) for module in made.layer1.modules())
    before = made.bn1.running_mean.clone()
    made(torch.rand(4, 3, 64, 64, dtype=torch.float64))
    assert not torch.equal(made.bn1.running_mean, before)


def test_looking_for_pairs_moves_no_statistics() -> None:
    made = network("test_resnet").train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    BatchNormFolding(made, 64)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert made.training


def test_a_convolution_whose_output_goes_elsewhere_too_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            made = self.conv(x)
            return made + self.norm(made)

    made = Both().eval()
    nn.init.uniform_(made.norm.running_mean)
    images = torch.rand(2, 3, 8, 8)
    plain = made(images)
    assert BatchNormFolding(made, 8).fold() == 0
    assert torch.allclose(made(images), plain, atol=1e-6)


def test_a_network_without_batch_norm_is_not_even_run() -> None:
    assert BatchNormFolding(nn.Linear(3, 3), 8).fold() == 0
