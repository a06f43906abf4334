"""The image contract: whatever the file, the same upright, opaque RGB pixels, and the same model input."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.errors import ImageError
from lensmith.imaging import image
from lensmith.imaging.image import (
    Preprocessing,
    decode,
    normalise,
    pixels,
    preprocess,
    read,
    resize,
    shortest_side_px,
)

PHOTOS = Path(skimage.__file__).parent / "data"


def encoded(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def photo(name: str = "chelsea.png") -> Image.Image:
    return Image.open(PHOTOS / name).convert("RGB")


def array(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG put together by hand, for kinds that Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


# Kinds of files


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_taken_with_the_camera_turned_comes_out_upright(orientation: int) -> None:
    upright = photo().resize((120, 80))
    # What a camera stores so that its orientation tag turns it upright again.
    turn = {
        1: (), 2: (Image.Transpose.FLIP_LEFT_RIGHT,), 3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,), 5: (Image.Transpose.TRANSPOSE,), 6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.TRANSVERSE,), 8: (Image.Transpose.ROTATE_270,),
    }[orientation]  # fmt: skip
    stored = upright
    for step in turn:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(stored, "JPEG", quality=95, exif=exif))
    assert found.size == upright.size
    assert np.abs(array(found) - array(upright)).mean() < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_picture() -> None:
    found = decode(encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff"))
    assert found.size == photo().size


def test_transparency_is_flattened_on_white() -> None:
    picture = Image.new("RGBA", (4, 1), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 255))
    picture.putpixel((2, 0), (0, 0, 0, 128))
    found = array(decode(encoded(picture)))[0]
    assert found[0].tolist() == [255, 255, 255]
    assert found[1].tolist() == [200, 0, 0]
    assert abs(found[2] - 127).max() <= 1


def test_grey_and_alpha_is_flattened_on_white() -> None:
    picture = Image.new("LA", (2, 1), (10, 0))
    picture.putpixel((1, 0), (10, 255))
    assert array(decode(encoded(picture)))[0].tolist() == [[255] * 3, [10] * 3]


def test_a_palette_with_transparency_is_flattened_on_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 128, 0, 200, 10, 10])
    picture.putpixel((1, 0), 1)
    assert array(decode(encoded(picture, transparency=0)))[0].tolist() == [[255] * 3, [200, 10, 10]]


def test_a_transparent_key_colour_of_an_rgb_png_is_flattened_on_white() -> None:
    picture = Image.new("RGB", (2, 1), (0, 0, 0))
    picture.putpixel((1, 0), (9, 8, 7))
    assert array(decode(encoded(picture, transparency=(0, 0, 0))))[0].tolist() == [[255] * 3, [9, 8, 7]]


def test_a_grey_photo_becomes_three_equal_channels() -> None:
    grey = Image.open(PHOTOS / "camera.png")
    assert grey.mode == "L"
    found = array(decode((PHOTOS / "camera.png").read_bytes()))
    assert (found == np.asarray(grey)[:, :, None]).all()


def test_one_bit_becomes_black_and_white() -> None:
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert array(decode(encoded(picture)))[0].tolist() == [[0] * 3, [255] * 3]


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    stored = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(array(decode(stored)) - (255, 0, 0)).max() < 12


def test_16_bit_grey_is_scaled_by_its_depth_even_where_it_is_dark() -> None:
    bright = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    assert array(decode(encoded(Image.fromarray(bright))))[0, :, 0].tolist() == list(range(256))
    dark = np.full((2, 2), 200, dtype=np.uint16)
    assert array(decode(encoded(Image.fromarray(dark)))).max() == 0


def test_16_bit_colour_is_scaled_by_its_depth() -> None:
    row = b"\0" + struct.pack(">6H", 0, 32768, 65535, 256 * 7, 256 * 8, 256 * 9)
    assert array(decode(png(2, 1, 16, 2, row)))[0].tolist() == [[0, 128, 255], [7, 8, 9]]


def test_a_16_bit_big_endian_tiff_is_read() -> None:
    picture = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 0, 65535))
    assert array(decode(encoded(picture, "TIFF")))[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_32_bit_tiff_beyond_255_is_taken_for_16_bit(mode: str) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype={"I": np.int32, "F": np.float32}[mode])
    assert array(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == [0, 100, 255]


def test_an_interlaced_png_is_the_same_picture() -> None:
    # Adam7 of 2 × 2: pass 1 holds pixel 0, pass 6 pixel 1, pass 7 the second row.
    rows = bytes([0, 10, 10, 10, 0, 20, 20, 20, 0, 30, 30, 30, 40, 40, 40])
    whole = bytearray(png(2, 2, 8, 2, rows))
    whole[28] = 1  # the interlace byte of IHDR
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    assert array(decode(bytes(whole)))[:, :, 0].tolist() == [[10, 20], [30, 40]]


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    stored = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (array(decode(stored)) == (255, 0, 0)).all()
    assert decode((PHOTOS / "no_time_for_that_tiny.gif").read_bytes()).mode == "RGB"


@pytest.mark.parametrize("format", ["WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_decode_like_the_png(format: str) -> None:  # noqa: A002
    picture = photo("coffee.png").resize((90, 60))
    found = array(decode(encoded(picture, format, **({"lossless": True} if format == "WEBP" else {}))))
    assert np.abs(found - array(picture)).mean() < (12 if format == "GIF" else 1e-9)


# Files that are refused


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_file_cut_short_is_refused(format: str, share: float) -> None:  # noqa: A002
    whole = encoded(photo().resize((200, 150)), format)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(whole[: int(len(whole) * share)])


def test_a_large_jpeg_cut_short_is_refused_by_the_scaled_decode_too() -> None:
    whole = encoded(photo().resize((1600, 1200)), "JPEG")
    with pytest.raises(ImageError):
        decode(whole[: len(whole) // 2], shortest_px=150)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode(content)


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_damage_anywhere_gives_a_picture_or_an_image_error_and_nothing_else(noise: bytes, where: int) -> None:
    whole = bytearray(encoded(Image.new("RGB", (24, 24), (9, 99, 199)), "JPEG"))
    whole[where : where + len(noise)] = noise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF
        with contextlib.suppress(ImageError):
            assert decode(bytes(whole)).mode == "RGB"


def test_a_bomb_is_refused_by_its_header_before_it_is_unpacked() -> None:
    bomb = png(40_000, 40_000, 8, 2, b"\0" * 1000)
    with pytest.raises(ImageError):
        decode(bomb)
    with pytest.raises(ImageError, match=r"at most 1,000 pixels.*451 × 300"):
        decode(encoded(photo()), max_pixels=1_000)


def test_a_jpeg_of_passes_without_end_is_refused_before_they_are_gone_through() -> None:
    progressive = encoded(photo(), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=r"at most 100 scans.*1,0\d\d"):
        decode(progressive[:-2] + 1000 * last + b"\xff\xd9")
    assert decode(progressive[:-2] + last + b"\xff\xd9").size == photo().size


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_a_large_picture_converted_strip_by_strip_is_what_it_would_be_at_once(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 4), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 251)
    else:
        picture = Image.fromarray(noise).convert("RGB" if mode in ("P", "CMYK") else mode).convert(mode)
    options = {"transparency": 7} if mode in ("P", "L") else {}
    stored = encoded(picture, "TIFF" if mode == "CMYK" else "PNG", **options)
    at_once = array(decode(stored))
    monkeypatch.setattr(image, "STRIP_PIXELS", 1000)
    assert np.array_equal(array(decode(stored)), at_once)


def test_a_missing_and_an_empty_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="is empty"):
        read(tmp_path / "empty.png")


# Geometry


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
@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 2000), (33, 31)])
def test_every_shape_of_picture_becomes_a_square(mode: str, size: tuple[int, int]) -> None:
    how = Preprocessing(32, mode)
    found = preprocess(encoded(Image.new("RGB", size, (10, 200, 30))), how)
    assert found.shape == (3, 32, 32)
    assert found.dtype == np.float32


# Speed without another answer


@pytest.mark.parametrize("mode", ["crop", "letterbox", "squash"])
@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "astronaut.png"])
def test_the_scaled_decode_of_a_large_jpeg_is_close_to_the_full_one(mode: str, name: str) -> None:
    large = photo(name).resize((2000, 1500), Image.Resampling.LANCZOS)
    stored = encoded(large, "JPEG", quality=92)
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
