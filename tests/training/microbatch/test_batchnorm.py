"""Ghost batch norm: the split into chunks changes nothing, and a single virtual batch is plain PyTorch."""

import copy
from collections.abc import Callable, Sequence

import pytest
import timm
import torch
from torch import Tensor, nn

from lensmith.training.microbatch.batchnorm import GhostBatchNorm, training_batchnorms

pytestmark = pytest.mark.usefixtures("_one_thread")


def small(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), nn.Conv2d(4, 6, 3), norm(6), nn.Flatten(2))


def pictures(images: int, seed: int = 1) -> Tensor:
    return torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def forward(model: nn.Module, x: Tensor, chunks: Sequence[Sequence[int]]) -> Tensor:
    """Outputs of a forward pass in chunks, whose statistics are committed."""
    batchnorm, answers, start = GhostBatchNorm(model), [], 0
    with batchnorm.collecting():
        for sizes in chunks:
            with batchnorm.chunk(sizes):
                answers.append(model(x[start : start + sum(sizes)]))
            start += sum(sizes)
    batchnorm.commit(batchnorm.sums(), batchnorm.counts())
    return torch.cat(answers)


def states(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-6, msg=lambda said, n=name: n + said)


class _Middle(nn.Module):
    """Folds the two last axes of each image into the first: BatchNorm sees (N · 30 · 30, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 1)
        return self.norm(x.flatten(0, 2)).view(x.shape)  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": small,
    "no momentum": lambda: small(lambda width: nn.BatchNorm2d(width, momentum=None)),
    "momentum 1": lambda: small(lambda width: nn.BatchNorm2d(width, momentum=1.0)),
    "not affine": lambda: small(lambda width: nn.BatchNorm2d(width, affine=False)),
    "no running statistics": lambda: small(lambda width: nn.BatchNorm2d(width, track_running_stats=False)),
    "folded": _Middle,
    "test_resnet": lambda: timm.create_model("test_resnet", num_classes=3),
    "BatchNormAct2d": lambda: timm.create_model("test_efficientnet", num_classes=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_one_virtual_batch_is_plain_pytorch_to_the_last_statistic(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().train()
    plain = copy.deepcopy(model)
    for step in range(3):
        x = pictures(6, seed=step)
        torch.testing.assert_close(forward(model, x, [[6]]), plain(x), rtol=1e-5, atol=1e-5)
        assert_same(states(model), states(plain))


@pytest.mark.parametrize("name", MODELS)
def test_the_split_between_virtual_batches_changes_nothing(name: str) -> None:
    x, start = pictures(11), MODELS[name]().train()
    answers, learnt = [], []
    for chunks in ([[3, 3, 3, 2]], [[3, 3], [3, 2]], [[3], [3, 3, 2]], [[3], [3], [3], [2]]):
        model = copy.deepcopy(start)
        answers.append(forward(model, x, chunks))
        learnt.append(states(model))
    for answer, state in zip(answers[1:], learnt[1:], strict=True):
        torch.testing.assert_close(answer, answers[0], rtol=1e-5, atol=1e-5)
        assert_same(state, learnt[0])


def test_statistics_move_once_by_the_mean_over_the_virtual_batches() -> None:
    model, x = nn.Sequential(nn.BatchNorm2d(3, momentum=0.25)), pictures(9)
    forward(model, x, [[3, 3], [3]])
    parts = x.split(3)
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    var = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
    torch.testing.assert_close(model[0].running_mean, 0.25 * mean)
    torch.testing.assert_close(model[0].running_var, 0.75 + 0.25 * var)
    assert model[0].num_batches_tracked == 1


def test_a_virtual_batch_of_one_image_is_normalised_by_running_statistics_and_moves_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))  # which refuses one row, left to itself
    x = torch.randn(5, 3)
    forward(model, x, [[5]])
    before = states(model)
    known = copy.deepcopy(model).eval()(x[:1])
    torch.testing.assert_close(forward(model, x[:1], [[1]]), known)
    assert_same(states(model), before)
    together, without = copy.deepcopy(model), copy.deepcopy(model)
    forward(together, x, [[4], [1]])
    forward(without, x[:4], [[4]])
    assert_same(states(together), states(without))


def test_a_layer_that_a_step_leaves_out_stays_as_it_was() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.skip = nn.BatchNorm1d(3), nn.BatchNorm1d(3), False

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x if self.skip else self.second(x)  # type: ignore[no-any-return]

    model = Skips()
    forward(model, torch.randn(6, 3) + 4, [[3, 3]])
    before, model.skip = states(model.second), True
    forward(model, torch.randn(6, 3) + 4, [[3, 3]])
    assert_same(states(model.second), before)
    assert model.first.num_batches_tracked == 2


def test_a_network_that_was_moved_since_learns() -> None:
    model = small()
    batchnorm = GhostBatchNorm(model)
    plain = copy.deepcopy(model.double())
    with batchnorm.collecting(), batchnorm.chunk([6]):
        model(pictures(6).double())
    batchnorm.commit(batchnorm.sums(), batchnorm.counts())
    plain(pictures(6).double())
    assert_same(states(model), states(plain))


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_back_in_its_place_afterwards(fails: bool) -> None:
    model = small(lambda width: nn.BatchNorm2d(width, momentum=0.3))
    norms = [model[1], model[4]]
    kept = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    before, batchnorm = states(model), GhostBatchNorm(model)
    with pytest.raises(MemoryError) if fails else torch.enable_grad(), batchnorm.collecting(), batchnorm.chunk([4, 1]):
        model(pictures(5))
        if fails:
            raise MemoryError
    assert_same(states(model), before)
    for norm, tensors in zip(norms, kept, strict=True):
        assert (norm.running_mean, norm.running_var, norm.num_batches_tracked) == tensors
        assert norm.momentum == 0.3
        assert norm.training
        assert "forward" not in vars(norm)


def test_only_layers_in_training_are_taken() -> None:
    model = small()
    assert training_batchnorms(model.train()) == [model[1], model[4]]
    model[1].eval()
    assert training_batchnorms(model) == [model[4]]
    assert training_batchnorms(model.eval()) == []
    by_batch = small(lambda width: nn.BatchNorm2d(width, track_running_stats=False)).eval()
    assert training_batchnorms(by_batch) == [by_batch[1], by_batch[4]]
