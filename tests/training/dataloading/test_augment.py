"""Augmentation is a pure function of (seed, epoch, sample, copy), and changes a picture only as far as it says."""

import json
import random as python_random
import sys
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lensmith.config import TrainSettings
from lensmith.errors import MissingPackageError, SettingsError, UnmaintainedWarning
from lensmith.imaging.preprocessing import Preprocessing, resize
from lensmith.training.dataloading.augment import LEVELS, Augment, build, trivial_augment

HOW = Preprocessing(image_size=32, crop_fraction=1.0)
AS_IT_IS = [0.0, 1.0, 1.0, 1.0]


def picture(width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def batch(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def varied(level: Augment, *key: int) -> tuple[Any, Any]:
    random = level.draw(*key)
    return level.factors(random).tolist(), level.picture(picture(), HOW, random).tolist()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline as a user would save it."""
    import albumentations

    path = tmp_path_factory.mktemp("pipelines") / "pipeline.json"
    names = ("HorizontalFlip", "VerticalFlip", "Transpose", "InvertImg")
    pipeline = albumentations.Compose([*(getattr(albumentations, name)(p=0.5) for name in names)])
    albumentations.save(pipeline, path)
    albumentations.save(pipeline, path.with_suffix(".yaml"), data_format="yaml")
    return path


@pytest.fixture(params=["standard", "trivial", "albumentations", "transforms"])
def level(request: pytest.FixtureRequest, written: Path, tmp_path: Path) -> Augment:
    if request.param in LEVELS:
        return LEVELS[request.param]
    (tmp_path / "mine.yaml").write_text(LISTED)
    return build(settings(**{request.param: tmp_path / "mine.yaml" if request.param == "transforms" else written}), 32)


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({"data": "photos", **changes})


def test_seed_epoch_sample_and_copy_decide_the_picture(level: Augment) -> None:
    keys = ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    pictures = [varied(level, *key) for key in keys]
    assert all(a != b for i, a in enumerate(pictures) for b in pictures[:i])
    assert pictures == [varied(level, *key) for key in keys]


def test_random_numbers_of_the_process_are_neither_used_nor_moved(level: Augment) -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        python_random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), python_random.getstate()  # type: ignore[index]
        made.append([varied(level, 0, 0, sample) for sample in range(4)])
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), python_random.getstate()  # type: ignore[index]
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert made[0] == made[1]


def test_samples_copies_and_epochs_share_no_random_numbers() -> None:
    keys = product((0, 1), (0, 1), range(4), (0, 1))  # seed, epoch, sample, copy
    drawn = [number for key in keys for number in LEVELS["standard"].draw(*key).random(64).tolist()]
    assert len(set(drawn)) == len(drawn)


def test_a_flip_is_numpy_s_mirror_and_befalls_half_of_the_samples() -> None:
    images = batch()
    flipped = Augment(flip=True).apply(images, torch.tensor([[1.0, 1, 1, 1], AS_IT_IS]))
    assert np.array_equal(flipped[0].numpy(), images[0].numpy()[:, :, ::-1])
    assert torch.equal(flipped[1], images[1])
    light = LEVELS["light"]
    assert 0.4 < np.mean([light.factors(light.draw(0, 0, sample))[0] for sample in range(400)]) < 0.6


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


def test_every_choice_of_the_setting_is_a_level() -> None:
    assert set(LEVELS) == set(get_args(TrainSettings.model_fields["augment"].annotation))
    assert all(build(settings(augment=name), 32) is level for name, level in LEVELS.items())


def test_flip_alone_leaves_the_picture_whole() -> None:
    level = LEVELS["flip"]
    assert np.array_equal(level.picture(picture(), HOW, level.draw(0, 0, 0)), resize(picture(), HOW))
    assert {level.factors(level.draw(0, 0, sample))[0] for sample in range(40)} == {0.0, 1.0}


def test_trivial_augment_does_one_thing_of_many_to_the_picture() -> None:
    pixels = resize(picture(), HOW)
    made = [trivial_augment(pixels, np.random.default_rng(seed)) for seed in range(60)]
    assert {(one.shape, one.dtype) for one in made} == {(pixels.shape, pixels.dtype)}
    assert len({one.tobytes() for one in made}) > 30
    assert any(np.array_equal(one, pixels) for one in made)  # identity is among them


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_of_albumentations_stands_in_for_flip_and_colour_after_the_crop(written: Path, suffix: str) -> None:
    level = build(settings(albumentations=written.with_suffix(suffix), augment="standard"), 32)
    assert (level.area, level.flip, level.colour) == (LEVELS["standard"].area, False, 0.0)
    random = level.draw(0, 0, 0)
    assert level.factors(random).tolist() == AS_IT_IS
    assert level.picture(picture(), HOW, random).shape == (32, 32, 3)


def test_transforms_of_a_file_are_drawn_each_by_itself(written: Path) -> None:
    level = build(settings(albumentations=written), 32)
    assert level.alter is not None
    pixels = resize(picture(), HOW)
    made = {level.alter(pixels, np.random.default_rng(seed)).tobytes() for seed in range(200)}
    assert len(made) == 16  # four transforms, each applied or not


def test_a_file_of_one_transform_will_do(tmp_path: Path) -> None:
    import albumentations

    albumentations.save(albumentations.HorizontalFlip(p=1), tmp_path / "flip.json")
    level = build(settings(albumentations=tmp_path / "flip.json"), 32)
    assert level.alter is not None
    pixels = resize(picture(), HOW)
    assert np.array_equal(level.alter(pixels, np.random.default_rng(0)), pixels[:, ::-1])


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"transform": {"__class_fullname__": "os.system"}}'])
def test_a_file_that_holds_no_pipeline_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "pipeline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"pipeline\.json. It cannot be loaded"):
        build(settings(albumentations=path), 32)


@pytest.mark.parametrize("name", ["Normalize", "CenterCrop"])
def test_a_pipeline_that_changes_size_or_type_is_refused_before_training(tmp_path: Path, name: str) -> None:
    import albumentations

    made = albumentations.CenterCrop(16, 16) if name == "CenterCrop" else albumentations.Normalize()
    albumentations.save(made, tmp_path / "pipeline.json")
    with pytest.raises(SettingsError, match="without a change of size, normalisation"):
        build(settings(albumentations=tmp_path / "pipeline.json"), 32)


def test_without_the_package_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(MissingPackageError, match="pip install albumentations"):
        build(settings(albumentations="pipeline.json"), 32)


def test_albumentations_warns_that_it_is_unmaintained(written: Path) -> None:
    with pytest.warns(UnmaintainedWarning, match="--transforms"):
        build(settings(albumentations=written), 32)


LISTED = """
- RandomHorizontalFlip
- RandomVerticalFlip: {p: 0.5}
- RandomApply: {p: 0.5, transforms: [{RandomInvert: {p: 1}}]}
"""


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_transforms_of_torchvision_replace_flip_and_colour_each_drawn_by_itself(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_text(json.dumps(yaml.safe_load(LISTED)) if suffix == ".json" else LISTED)
    level = build(settings(transforms=path, augment="standard"), 32)
    assert (level.area, level.flip, level.colour) == (LEVELS["standard"].area, False, 0.0)
    assert level.alter is not None
    pixels = resize(picture(), HOW)
    flips = [pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1]]
    made = {level.alter(pixels, np.random.default_rng(seed)).tobytes() for seed in range(100)}
    assert made == {form.tobytes() for flip in flips for form in (flip, 255 - flip)}


def test_arguments_that_are_enumerations_are_written_as_their_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "- RandomRotation: {degrees: [90, 90], interpolation: bilinear}\n- AutoAugment: {policy: cifar10}\n"
    )
    assert build(settings(transforms=path), 32).alter is not None


@pytest.mark.parametrize(
    "content",
    [
        None, "", "RandomInvert", "[]", "- Invert", "- RandomInvert: {q: 1}", "- RandomInvert: 0.5", "- functional",
        "- Lambda: {}", "- CenterCrop: {size: 16}", "- ToDtype: {dtype: float32}", "- RandomApply: {transforms: [e]}",
        "- {RandomInvert: , RandomGrayscale: }", "- GaussianBlur: {kernel_size: 4}", "- a: [", "\xff",
    ],
)  # fmt: skip
def test_a_file_without_a_list_of_transforms_that_keep_the_size_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"mine\.yaml"):
        build(settings(transforms=path), 32)
