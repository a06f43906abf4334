"""A batch is mixed as the papers say, by random numbers of its step alone."""

import pytest
import torch
from torch import Tensor

from lensmith.training.dataloading.mixup import Mixer

CLASSES = 3


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    pictures = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return pictures.to(memory_format=torch.channels_last), torch.arange(count) % CLASSES


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_targets_are_shares_of_two_classes(mixup: float, cutmix: float) -> None:
    pictures, labels = batch()
    mixed, targets = Mixer(mixup, cutmix, CLASSES)(pictures, labels, 0, 0)
    assert (targets.dtype, tuple(targets.shape)) == (torch.float32, (6, CLASSES))
    assert torch.allclose(targets.sum(1), torch.ones(6))
    assert int((targets > 0).sum(1).max()) <= 2
    assert mixed.shape == pictures.shape
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    if not (mixup and cutmix):  # CutMix alone takes each pixel from one of the two
        patched = (mixed == pictures) | (mixed == pictures.roll(1, 0))
        assert bool(patched.all()) == (cutmix > 0)


def test_a_step_is_always_mixed_the_same_and_no_other_like_it() -> None:
    mixer, (pictures, labels) = Mixer(0.4, 1.0, CLASSES), batch()
    keys = [(seed, step) for seed in (0, 1) for step in range(4)]
    made = [mixer(pictures, labels, *key)[0] for key in keys]
    torch.manual_seed(5)
    assert all(torch.equal(mixer(pictures, labels, *key)[0], one) for key, one in zip(keys, made, strict=True))
    assert not any(torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])


def test_torch_s_own_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    Mixer(0.4, 1.0, CLASSES)(*batch(), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_with_both_a_coin_says_which() -> None:
    pictures, labels = batch()
    both = Mixer(1.0, 1.0, CLASSES)
    patched = 0
    for step in range(200):
        mixed, _ = both(pictures, labels, 0, step)
        unchanged = (mixed == pictures) | (mixed == pictures.roll(1, 0))
        patched += bool(unchanged.all())
    assert 70 < patched < 130


def test_one_picture_alone_stays_as_it_is() -> None:
    pictures, labels = batch(1)
    for step in range(5):
        mixed, targets = Mixer(1.0, 1.0, CLASSES)(pictures, labels, 0, step)
        assert torch.allclose(mixed, pictures)
        assert torch.allclose(targets, torch.tensor([[1.0, 0, 0]]))
