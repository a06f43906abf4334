"""The image contract: one way from a file's bytes to model input, by the resize mode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixtures.pictures import encoded, photo
from lensmith.imaging.decoding import decode
from lensmith.imaging.preprocessing import Preprocessing, normalise, pixels, preprocess, resize, shortest_side_px


def halves() -> Image.Image:
    """300 × 100: left third red, middle green, right blue."""
    picture = Image.new("RGB", (300, 100), (0, 255, 0))
    picture.paste((255, 0, 0), (0, 0, 100, 100))
    picture.paste((0, 0, 255), (200, 0, 300, 100))
    return picture


def test_crop_keeps_the_middle() -> None:
    found = resize(halves(), Preprocessing(50, "crop", crop_fraction=0.8))
    assert found.shape == (50, 50, 3)
    assert (found == (0, 255, 0)).all()


def test_crop_equals_resizing_and_then_cutting_out_the_centre() -> None:
    picture = photo("coffee.png")  # 600 × 400
    how = Preprocessing(224, "crop", crop_fraction=0.875)
    resized = picture.resize((384, 256), Image.Resampling.BICUBIC)
    reference = np.asarray(resized.crop((80, 16, 304, 240))).astype(int)
    difference = np.abs(resize(picture, how).astype(int) - reference)
    assert difference.mean() < 0.5
    assert difference.max() < 16


def test_letterbox_keeps_all_of_it_on_black() -> None:
    found = resize(halves(), Preprocessing(60, "letterbox"))
    assert found.shape == (60, 60, 3)
    assert (found[:19] == 0).all()
    assert (found[41:] == 0).all()
    assert found[30, 5].tolist() == [255, 0, 0]
    assert found[30, 54].tolist() == [0, 0, 255]


def test_squash_fills_the_square_with_all_of_it() -> None:
    found = resize(halves(), Preprocessing(60, "squash"))
    assert found[3, 5].tolist() == [255, 0, 0]
    assert found[56, 54].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode", ["crop", "letterbox", "squash"])
def test_every_shape_of_picture_becomes_a_square(mode: str) -> None:
    for size in ((1, 1), (2000, 1), (1, 2000), (33, 31)):
        found = preprocess(encoded(Image.new("RGB", size, (10, 200, 30))), Preprocessing(32, mode))
        assert (found.shape, found.dtype) == ((3, 32, 32), np.float32)


# Speed without another answer


@pytest.mark.parametrize(
    ("mode", "name"), [("crop", "chelsea.png"), ("letterbox", "coffee.png"), ("squash", "astronaut.png")]
)
def test_the_scaled_decode_of_a_large_jpeg_is_close_to_the_full_one(mode: str, name: str) -> None:
    stored = encoded(photo(name).resize((2000, 1500)), "JPEG", quality=92)
    how = Preprocessing(224, mode)
    scaled = decode(stored, shortest_side_px(how))
    assert scaled.size == (500, 375)
    difference = np.abs(pixels(stored, how).astype(int) - resize(decode(stored), how))
    assert difference.mean() < 1.5


def test_the_scaled_decode_never_falls_below_what_is_used() -> None:
    how = Preprocessing(224, "crop", crop_fraction=0.875)
    for side in (255, 256, 300, 511, 512, 513, 1100):
        stored = encoded(Image.new("RGB", (side + 40, side)), "JPEG")
        assert min(decode(stored, shortest_side_px(how)).size) >= min(side, 256)


@given(st.integers(0, 2**32 - 1))
def test_the_look_up_table_equals_float_arithmetic(seed: int) -> None:
    how = Preprocessing(8)
    square = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mean, std = np.array(how.mean), np.array(how.std)
    expected = ((square / 255.0 - mean) / std).transpose(2, 0, 1)
    assert np.abs(normalise(square, how) - expected).max() < 1e-6


def test_model_input_is_the_decoded_picture_and_nothing_else() -> None:
    how = Preprocessing(16, "squash", mean=(0, 0, 0), std=(1, 1, 1))
    found = preprocess(encoded(Image.new("RGB", (40, 20), (0, 51, 255))), how)
    assert np.allclose(found.mean(axis=(1, 2)), (0, 0.2, 1), atol=1e-6)
