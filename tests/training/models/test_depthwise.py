"""Depthwise convolutions go back by a way of their own to the gradients that torch computes."""

import copy
import itertools

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lensmith.training.models import depthwise
from lensmith.training.models.depthwise import convolve, input_gradient, is_supported, weight_gradient
from lensmith.training.models.fold_batchnorm import BatchNormFolding

CHANNELS = 16
LAYOUTS = {"last": torch.channels_last, "first": torch.contiguous_format}


def gradients(made: Tensor, *of: Tensor) -> list[Tensor]:
    direction = torch.randn(made.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return list(torch.autograd.grad(made, of, direction.to(made.dtype)))


def case(kernel: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, CHANNELS, *size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(CHANNELS, 1, *kernel, dtype=torch.float64, requires_grad=True)
    return x, weight, torch.randn(CHANNELS, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.float64, "last"), (torch.float32, "last"), (torch.float32, "first"), (torch.bfloat16, "last")],
    ids=str,
)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (3, 5), (4, 4), (9, 1), (1, 9)])
def test_both_gradients_are_torchs(
    kernel: tuple[int, int], stride: tuple[int, int], layout: str, dtype: torch.dtype
) -> None:
    allowed = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    checked = 0
    for size, padded in itertools.product([(12, 11), (7, 7), (5, 13), (2, 2), (1, 3)], (True, False)):
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        if any(s + 2 * p < k for s, p, k in zip(size, padding, kernel, strict=True)):
            continue
        low = [one.detach().to(dtype).to(memory_format=LAYOUTS[layout]) for one in case(kernel, size)[:2]]
        x, weight = (one.clone().double().requires_grad_() for one in low)
        made = functional.conv2d(x, weight, None, stride, padding, groups=CHANNELS)
        direction = torch.randn(made.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        exact = torch.autograd.grad(made, (x, weight), direction.double())
        direction = direction.to(memory_format=LAYOUTS[layout])
        found = [function(direction, *low, stride, padding) for function in (input_gradient, weight_gradient)]
        for ours, theirs in zip(found, exact, strict=True):
            assert (ours.dtype, ours.shape) == (dtype, theirs.shape)
            assert float((ours.double() - theirs).abs().max()) <= allowed * float(theirs.abs().max())
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("wanted", ["all", "input", "numbers"])
def test_a_convolution_takes_it_and_gives_what_is_asked_for(
    kind: type[nn.Conv2d], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    real = depthwise.weight_gradient
    monkeypatch.setattr(depthwise, "weight_gradient", lambda *given: taken.append(1) or real(*given))
    x, weight, bias = case((5, 5), (9, 9))
    padding = {} if kind is Conv2dSame else {"padding": 2}
    conv = kind(CHANNELS, CHANNELS, 5, stride=2, groups=CHANNELS, **padding).double()
    conv.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    of = {"all": [x, weight, bias], "input": [x], "numbers": [weight, bias]}[wanted]
    for tensor in (x, weight, bias):
        tensor.requires_grad_(any(tensor is one for one in of))
    made = convolve(conv, x, weight, bias)
    assert torch.equal(made, conv(x))
    ours = gradients(made, *of)
    assert bool(taken) == (wanted != "input")
    pad = [conv(x).shape[2], 0]
    usual = functional.conv2d(functional.pad(x, (2, 2, 2, 2)), weight, bias, 2, groups=CHANNELS)
    assert usual.shape[2] == pad[0]
    for one, other in zip(ours, gradients(usual, *of), strict=True):
        assert torch.allclose(one, other, atol=1e-11)


def test_in_bfloat16_gradients_are_as_exact_as_torchs() -> None:
    x, weight, _ = case((5, 5), (10, 10))
    conv = nn.Conv2d(CHANNELS, CHANNELS, 5, 2, 2, groups=CHANNELS, bias=False)
    exact = gradients(functional.conv2d(x, weight, None, 2, 2, groups=CHANNELS), x, weight)
    low = [one.detach().float().requires_grad_() for one in (x, weight)]

    def errors(made: Tensor) -> list[float]:
        found = gradients(made, *low)
        assert all(one.dtype == torch.float32 for one in found)
        return [float((one - right).abs().max() / right.abs().max()) for one, right in zip(found, exact, strict=True)]

    with torch.autocast("cpu", torch.bfloat16):
        ours = convolve(conv, *low, None)
        usual = functional.conv2d(*low, None, 2, 2, groups=CHANNELS)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, usual)
    assert max(errors(ours)) < max(0.01, 1.5 * max(errors(usual)))


def test_what_is_no_depthwise_convolution_is_left_alone() -> None:
    assert is_supported(nn.Conv2d(4, 4, 5, groups=4))
    for other in (
        nn.Conv2d(4, 8, 5, groups=4),
        nn.Conv2d(4, 4, 5, groups=2),
        nn.Conv2d(1, 1, 5),
        nn.Conv2d(4, 4, 5, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, padding=3),
        nn.Conv2d(4, 4, 5, groups=4, padding="same"),
        nn.Conv2d(4, 4, 5, groups=4, padding=2, padding_mode="reflect"),
        nn.Conv1d(4, 4, 5, groups=4),
    ):
        assert not is_supported(other)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["learning", "folded"])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_mobilenetv3_small_075", "convnext_atto"])
def test_a_whole_network_has_the_same_gradients(name: str, training: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=5).double().train(training)
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64).to(memory_format=torch.channels_last)

    def of_all(network: nn.Module) -> list[Tensor]:
        torch.manual_seed(0)
        return list(torch.autograd.grad(network(images).square().sum(), list(network.parameters())))

    usual = of_all(copy.deepcopy(model))
    folding = BatchNormFolding(model, 64)
    folding.fold()
    convolutions = [one for one in model.modules() if is_supported(one)]
    assert len(convolutions) > 5
    assert all("forward" in one.__dict__ for one in convolutions)
    for ours, theirs in zip(of_all(model), usual, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    images.requires_grad_(False)
    other = copy.deepcopy(model)  # is a network of its own
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not other(images).any()
    assert model(images).any()
    folding.unfold()
    assert not any("forward" in one.__dict__ for one in model.modules())


def test_activations_may_be_computed_again() -> None:
    x, weight, bias = case((5, 5), (9, 9))
    conv = nn.Conv2d(CHANNELS, CHANNELS, 5, 1, 2, groups=CHANNELS).double()
    plain = gradients(convolve(conv, x, weight, bias), x, weight, bias)
    again = gradients(checkpoint(convolve, conv, x, weight, bias, use_reentrant=False), x, weight, bias)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
