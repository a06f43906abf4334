"""A crop is read as a picture of its own: the same pixels as of the upright picture, in every room that reads files."""

import io

import numpy as np
import pytest
from PIL import Image

from lensmith.data.scan import scan
from lensmith.errors import ImageError
from lensmith.imaging.crops import Box, box_of, crop_path, picture_of
from lensmith.imaging.decoding import decode, decoded_size, read


@pytest.fixture
def turned(tmp_path):
    """A picture that EXIF turns by 90°, and its upright pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    file = tmp_path / "a b#1.png"
    Image.fromarray(pixels).save(file, exif=exif)
    return file, np.rot90(pixels, -1)


def test_a_crop_has_the_pixels_of_the_upright_picture(turned):
    file, upright = turned
    path = file.with_name(crop_path(file.name, Box(10, 20, 30, 40)))
    assert (picture_of(path), box_of(path), box_of(file)) == (file, (10, 20, 30, 40), None)
    np.testing.assert_array_equal(np.asarray(decode(read(path))), upright[20:60, 10:40])
    assert decoded_size(path) == (30, 40)


def test_what_lies_outside_the_picture_is_left_out_or_refused(turned):
    file, upright = turned
    beyond = file.with_name(crop_path(file.name, Box(50, 70, 999, 999)))
    np.testing.assert_array_equal(np.asarray(decode(read(beyond))), upright[70:, 50:])
    assert decoded_size(beyond) == (10, 10)
    with pytest.raises(ImageError):
        read(file.with_name(crop_path(file.name, Box(60, 0, 5, 5))))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_plain_deep_values_stay_as_they_are(tmp_path, dtype):
    values = np.arange(80, dtype=dtype).reshape(8, 10) * np.asarray(300, dtype=dtype)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with Image.open(tmp_path / "deep.tif") as whole:
        expected = np.asarray(whole)[2:5, 1:9]
    cropped = np.asarray(Image.open(io.BytesIO(read(tmp_path / "deep.tif#xywh=1,2,8,3"))))
    np.testing.assert_array_equal(cropped, expected)


def test_colour_of_16_bits_is_refused(tmp_path):
    import tifffile  # of scikit-image

    tifffile.imwrite(tmp_path / "deep.tif", np.full((8, 8, 3), 40000, dtype=np.uint16))
    with pytest.raises(ImageError):
        read(tmp_path / "deep.tif#xywh=0,0,4,4")


def test_a_table_names_crops_and_groups(turned):
    file, _ = turned
    table = file.with_name("labels.csv")
    table.write_text(f'path,label,group\n"{file.name}#xywh=0,0,9,9",cat,a\n"{file.name}#xywh=9,9,9,9",dog,a\n')
    images = scan(table)
    assert [sample.group for sample in images.samples] == ["a", "a"]
    assert not images.set_aside
    assert images.sizes == (file.stat().st_size,) * 2
