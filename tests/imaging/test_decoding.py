"""Decoding: whatever the file, the same upright, opaque RGB pixels; what is no whole picture is refused."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixtures.pictures import encoded, photo
from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, read


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
    turns = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose[turns[orientation - 2]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(stored, "JPEG", quality=95, exif=exif))
    assert found.size == upright.size
    assert np.abs(array(found) - array(upright)).mean() < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_picture() -> None:
    found = decode(encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff"))
    assert found.size == photo().size


def two_pixels(mode: str, first: object, second: object) -> Image.Image:
    picture = Image.new(mode, (2, 1), first)
    picture.putpixel((1, 0), second)
    return picture


def palette() -> Image.Image:
    picture = two_pixels("P", 0, 1)
    picture.putpalette([0, 128, 0, 200, 10, 10])
    return picture


COLOUR_16_BIT = b"\0" + struct.pack(">6H", 0, 32768, 65535, 256 * 7, 256 * 8, 256 * 9)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(encoded(two_pixels("RGBA", (200, 0, 0, 0), (0, 0, 0, 128))), [[255] * 3, [127] * 3], id="alpha"),
        pytest.param(encoded(two_pixels("LA", (10, 0), (10, 255))), [[255] * 3, [10] * 3], id="grey and alpha"),
        pytest.param(encoded(two_pixels("L", 10, 200)), [[10] * 3, [200] * 3], id="grey"),
        pytest.param(encoded(palette(), transparency=0), [[255] * 3, [200, 10, 10]], id="palette, one transparent"),
        pytest.param(
            encoded(two_pixels("RGB", (0, 0, 0), (9, 8, 7)), transparency=(0, 0, 0)),
            [[255] * 3, [9, 8, 7]],
            id="transparent key colour",
        ),
        pytest.param(encoded(two_pixels("1", 0, 1)), [[0] * 3, [255] * 3], id="one bit"),
        pytest.param(png(2, 1, 16, 2, COLOUR_16_BIT), [[0, 128, 255], [7, 8, 9]], id="16-bit colour"),
        pytest.param(
            encoded(Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 0, 65535)), "TIFF"),
            [[0] * 3, [255] * 3],
            id="big-endian 16-bit TIFF",
        ),
    ],
)
def test_every_kind_of_pixel_becomes_opaque_8_bit_rgb(stored: bytes, expected: list[list[int]]) -> None:
    assert array(decode(stored))[0].tolist() == expected


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    stored = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(array(decode(stored)) - (255, 0, 0)).max() < 12


def test_16_bit_grey_is_scaled_by_its_depth_even_where_it_is_dark() -> None:
    bright = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    assert array(decode(encoded(Image.fromarray(bright))))[0, :, 0].tolist() == list(range(256))
    dark = np.full((2, 2), 200, dtype=np.uint16)
    assert array(decode(encoded(Image.fromarray(dark)))).max() == 0


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


@pytest.mark.parametrize("format", ["WEBP", "BMP", "TIFF", "GIF"])
def test_other_formats_decode_like_the_png(format: str) -> None:  # noqa: A002
    picture = photo("coffee.png").resize((90, 60))
    found = array(decode(encoded(picture, format, **({"lossless": True} if format == "WEBP" else {}))))
    assert np.abs(found - array(picture)).mean() < (12 if format == "GIF" else 1e-9)


# Files that are refused


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_cut_short_is_refused(format: str) -> None:  # noqa: A002
    whole = encoded(photo().resize((200, 150)), format)
    for share, shortest_px in ((0.02, None), (0.5, None), (0.9, None), (0.5, 40)):
        with pytest.raises(ImageError):
            decode(whole[: int(len(whole) * share)], shortest_px)


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
    with pytest.raises(ImageError, match="450 × 3"):
        decode(encoded(Image.new("RGB", (450, 3))), max_pixels=1_000)


def test_a_jpeg_of_passes_without_end_is_refused_before_they_are_gone_through() -> None:
    progressive = encoded(photo(), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError):
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
    monkeypatch.setattr("lensmith.imaging.decoding.STRIP_PIXELS", 1000)
    assert np.array_equal(array(decode(stored)), at_once)


def test_a_missing_and_an_empty_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png"):
        read(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png"):
        read(tmp_path / "empty.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((4, 4), np.float16), "1 float16 value a pixel"),
        (np.zeros((4, 4, 3), np.float32), "3 float32 values a pixel"),
        (np.zeros((4, 4), np.uint64), "1 uint64 value a pixel"),
    ],
)
def test_a_tiff_of_values_that_cannot_be_read_says_what_they_are(values: np.ndarray, expected: str) -> None:
    for big in (False, True):
        stored = io.BytesIO()
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(stored, values, photometric=photometric, bigtiff=big)
        with pytest.raises(ImageError) as caught:
            decode(stored.getvalue())
        assert expected in caught.value.arrived
