"""Augmentation is a pure function of (seed, epoch, sample), and changes a picture only as far as it says."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lensmith.image import Preprocessing, resize
from lensmith.train.augment import LEVELS, Augment

HOW = Preprocessing(image_size=32, crop_fraction=1.0)
AS_IT_IS = [0.0, 1.0, 1.0, 1.0]


def picture(width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def batch(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def numbers(seed: int, epoch: int, sample: int, count: int = 64) -> list[float]:
    return LEVELS["standard"].draw(seed, epoch, sample).random(count).tolist()


def varied(seed: int, epoch: int, sample: int) -> tuple[Any, Any]:
    level = LEVELS["standard"]
    random = level.draw(seed, epoch, sample)
    return level.factors(random).tolist(), level.crop(picture(), HOW, random).tolist()


def test_the_same_seed_epoch_and_sample_give_the_same_picture() -> None:
    assert varied(1, 2, 3) == varied(1, 2, 3)


def test_another_seed_epoch_or_sample_gives_another() -> None:
    pictures = [varied(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert all(a != b for i, a in enumerate(pictures) for b in pictures[:i])


def test_samples_and_epochs_share_no_random_numbers() -> None:
    keys = [(seed, epoch, sample) for seed in (0, 1) for epoch in (0, 1) for sample in (0, 1, 2, 3)]
    drawn = [number for key in keys for number in numbers(*key)]
    assert len(set(drawn)) == len(drawn)


def test_a_flip_is_numpy_s_mirror() -> None:
    images = batch()
    flipped = Augment(flip=True).apply(images, torch.tensor([[1.0, 1, 1, 1], AS_IT_IS]))
    assert np.array_equal(flipped[0].numpy(), images[0].numpy()[:, :, ::-1])
    assert torch.equal(flipped[1], images[1])


def test_about_half_of_the_samples_are_flipped() -> None:
    level = LEVELS["light"]
    flips = [level.factors(level.draw(0, 0, sample))[0] for sample in range(400)]
    assert 0.4 < np.mean(flips) < 0.6


def test_colour_factors_of_one_change_nothing() -> None:
    images = batch()
    assert torch.equal(LEVELS["standard"].apply(images.clone(), torch.tensor([AS_IT_IS] * 2)), images)


def test_each_colour_factor_does_what_it_is_called() -> None:
    images = 0.25 + batch() / 2
    for column, measure in (
        (1, lambda made: made.mean()),  # brightness
        (2, lambda made: made.mean(1).std()),  # contrast
        (3, lambda made: made.std(1).mean()),  # saturation
    ):
        less, more = torch.tensor([AS_IT_IS] * 2), torch.tensor([AS_IT_IS] * 2)
        less[:, column], more[:, column] = 0.8, 1.2
        level = LEVELS["standard"]
        assert measure(level.apply(images, less)) < measure(images) < measure(level.apply(images, more))


def test_colours_stay_between_black_and_white() -> None:
    images = torch.cat([torch.zeros(8, 3, 8, 8), torch.ones(8, 3, 8, 8), batch(16)[:, :, :8, :8]])
    factors = torch.empty(32, 4).uniform_(0.2, 1.8, generator=torch.Generator().manual_seed(1))
    made = Augment(flip=True, colour=0.8).apply(images, factors)
    assert made.min() >= 0
    assert made.max() <= 1


@pytest.mark.parametrize("level", ["light", "standard"])
@pytest.mark.parametrize("size", [(60, 40), (33, 97), (5, 4), (1, 1)])
def test_a_crop_lies_inside_the_picture_and_has_the_promised_share(
    level: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[tuple[float, float, float, float]] = []
    plain = Image.Image.resize

    def spy(self: Image.Image, size: tuple[int, int], resample: Any = None, box: Any = None) -> Image.Image:
        boxes.append(box)
        return plain(self, size, resample, box)

    monkeypatch.setattr(Image.Image, "resize", spy)
    augment, (width, height) = LEVELS[level], size
    assert augment.area is not None
    for sample in range(200):
        made = augment.crop(picture(*size), HOW, augment.draw(0, 0, sample))
        assert made.shape == (32, 32, 3)
        assert made.dtype == np.uint8
        left, top, right, bottom = boxes.pop()
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9
        area, aspect = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
        centre = abs(left + right - width) < 1e-9 and abs(top + bottom - height) < 1e-9
        assert centre or augment.area[0] - 1e-9 <= area <= augment.area[1] + 1e-9
        assert centre or 3 / 4 - 1e-9 <= aspect <= 4 / 3 + 1e-9


def test_a_strip_that_holds_no_such_crop_is_cropped_in_the_centre() -> None:
    strip, augment = picture(400, 10), LEVELS["standard"]
    made = augment.crop(strip, HOW, augment.draw(0, 0, 0))
    assert np.array_equal(made, resize(strip, HOW))


def test_without_augmentation_pictures_come_as_in_validation() -> None:
    level = LEVELS["none"]
    random = level.draw(0, 0, 0)
    factors = torch.from_numpy(level.factors(random)).expand(2, 4)
    assert np.array_equal(level.crop(picture(), HOW, random), resize(picture(), HOW))
    assert torch.equal(level.apply(batch(), factors), batch())
