"""Formats: a file is what its content is; only wanted decoders run, and errors name the format in our words."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import lensmith
from fixtures.pictures import encoded, photo
from lensmith.data.verify import check
from lensmith.errors import ImageError
from lensmith.imaging.containers import count_scans, without_metadata
from lensmith.imaging.decoding import decode, decoded_size
from lensmith.imaging.formats import FORMATS, SUFFIXES, available, identify, is_available, names

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n"
PILLOW_SAVES = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "gif": "GIF",
                "avif": "AVIF", "jp2": "JPEG2000", "ppm": "PPM"}  # fmt: skip
OTHERS = ["EPS", "ICO", "TGA", "PCX", "SGI", "IM", "ICNS", "DDS", "PALM", "PDF", "SPIDER", "MSP", "XBM", "BLP", "QOI"]


def small() -> Image.Image:
    return photo("coffee.png").resize((60, 40))


def heic(picture: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(picture).save(out, quality=95, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, added: bytes, at_the_end: bool = False) -> bytes:
    place = png.rindex(b"IEND") - 4 if at_the_end else 33
    return png[:place] + added + png[place:]


# What a file is


@pytest.mark.parametrize("key", PILLOW_SAVES)
def test_each_format_is_known_by_its_content_and_read_whatever_its_name(key: str, tmp_path: Path) -> None:
    stored = encoded(small(), PILLOW_SAVES[key])
    assert identify(stored) == FORMATS[key]
    file = tmp_path / "picture.gif.txt"
    file.write_bytes(stored)
    assert decode(stored).size == decoded_size(file) == (60, 40)


@pytest.mark.parametrize("codestream", [True, False])
def test_a_jpeg_2000_without_its_box_is_one(codestream: bool) -> None:
    stored = encoded(small(), "JPEG2000", no_jp2=codestream)
    assert identify(stored) == FORMATS["jp2"]
    assert np.array_equal(np.asarray(decode(stored)), np.asarray(small()))


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_jpeg_2000_with_deep_colours_is_refused_as_pillow_makes_its_white_black(bits: int) -> None:
    stored = bytearray(encoded(small(), "JPEG2000", no_jp2=True))
    for channel in range(3):
        stored[42 + 3 * channel] = bits - 1  # in the size segment
    with pytest.raises(ImageError, match=f"Its colours have {bits} bits"):
        decode(bytes(stored))


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_portable_maps_of_each_kind_are_read(mode: str) -> None:
    picture = small().convert(mode)
    assert np.array_equal(np.asarray(decode(encoded(picture, "PPM"))), np.asarray(picture.convert("RGB")))


def test_heic_is_read_upright_by_its_extra() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = heic(small().transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())
    found = decode(stored)
    assert found.size == (60, 40)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(small())).mean() < 6


@pytest.mark.parametrize(
    "head", [b"ftypheic\0\0\0\0mif1heic", b"ftypmif1\0\0\0\0mif1heic", b"ftypheix\0\0\0\0mif1", b"ftypmsf1\0\0\0\0hevc"]
)
def test_heic_without_its_extra_is_named_whatever_the_file_is_called(
    head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lensmith.imaging.formats.is_available", lambda form: form.key != "heic")
    monkeypatch.setattr("lensmith.data.files.is_available", lambda form: form.key != "heic")
    stored = struct.pack(">I", len(head) + 4) + head + bytes(200)
    assert identify(stored) == FORMATS["heic"]
    with pytest.raises(ImageError, match=r"HEIC: install lensmith\[heic\]"):
        decode(stored)
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.png").write_bytes(encoded(Image.new("RGB", (8, 8), (number, ord(label), 0))))
    (tmp_path / "a" / "IMG_1.HEIC").write_bytes(stored)
    (tmp_path / "a" / "IMG_2.jpg").write_bytes(stored)
    (tmp_path / "b" / "IMG_3.heic").write_bytes(encoded(small(), "JPEG"))  # a JPEG, as some phones export them
    checked = check(tmp_path)
    assert {finding.path: finding.reason for finding in checked.findings} == {
        "a/IMG_1.HEIC": "HEIC: install lensmith[heic]",
        "a/IMG_2.jpg": "It is HEIC: install lensmith[heic]",
    }
    assert checked.formats == {"PNG": 6, "JPEG": 1}


def test_an_avif_that_shares_its_first_brand_is_no_heic_and_a_video_is_neither() -> None:
    def brands(*given: bytes) -> bytes:
        return struct.pack(">I", 8 + 8 + 4 * (len(given) - 1)) + b"ftyp" + given[0] + bytes(4) + b"".join(given[1:])

    assert identify(brands(b"mif1", b"mif1", b"avif")) == FORMATS["avif"]
    assert identify(brands(b"mif1", b"heic")) == FORMATS["heic"]
    for video in (brands(b"isom", b"mp42"), brands(b"qt  "), brands(b"mp42", b"mif1")):
        assert identify(video) is None
        with pytest.raises(ImageError, match="it is a video"):
            decode(video)


def test_suffixes_of_all_formats_are_found_in_folders(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
    for number, (suffix, form) in enumerate(SUFFIXES.items()):
        if form.key != "heic":
            stored = encoded(Image.new("RGB", (8, 8), (10 * number, 0, 0)), PILLOW_SAVES[form.key])
            (tmp_path / "ab"[number % 2] / f"{number}{suffix.upper()}").write_bytes(stored)
    (tmp_path / "a" / "raw.NEF").write_bytes(b"MM\0*")
    checked = check(tmp_path)
    assert set(checked.formats) == {FORMATS[key].name for key in PILLOW_SAVES}
    assert [(finding.path, finding.reason) for finding in checked.findings] == [
        ("a/raw.NEF", "a camera raw file, which is not read: save it as JPEG or PNG")
    ]


# What is refused, and in which words


@pytest.mark.parametrize("other", OTHERS)
def test_a_format_that_is_not_wanted_is_refused_before_any_decoder_sees_it(other: str) -> None:
    picture = Image.new("1" if other in ("MSP", "XBM") else "P" if other in ("PALM", "BLP") else "RGB", (32, 32))
    if other == "SPIDER":
        picture = Image.new("F", (32, 32))
    try:
        stored = encoded(picture, other)
    except (KeyError, OSError, ValueError):
        pytest.skip("this Pillow does not write it")
    with pytest.raises(ImageError) as caught:
        decode(stored)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (POSTSCRIPT, "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + struct.pack("<2I", 30, 60) + bytes(18) + POSTSCRIPT, "PostScript"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), "WMF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GRIB" + bytes(20), "GRIB"),
        (b"BUFR" + bytes(20), "BUFR"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (bytes(128) + b"DICM" + bytes(40), "DICOM"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "camera raw"),
        (b"IIU\0" + bytes(40), "camera raw"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "camera raw"),
        (b"  \n<!DOCTYPE html><title>404</title>", "web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(content: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name):
        decode(content)


def test_no_program_is_started_and_no_other_decoder_loaded_for_any_file(tmp_path: Path) -> None:
    program = tmp_path / "gs"
    program.write_text(f'#!/bin/sh\necho called >> "{tmp_path}/calls"\necho 10.0\n')
    program.chmod(0o755)
    (tmp_path / "cat.jpg").write_bytes(POSTSCRIPT)
    (tmp_path / "good.webp").write_bytes(encoded(small(), "WEBP"))
    code = (
        "import sys; from pathlib import Path; from lensmith.imaging.decoding import decode, decoded_size\n"
        "from lensmith.errors import ImageError\n"
        "for function in (lambda file: decode(file.read_bytes()), decoded_size):\n"
        "    for file in map(Path, sys.argv[1:]):\n"
        "        try: function(file)\n"
        "        except ImageError: assert file.name == 'cat.jpg'\n"
        "        else: assert file.name != 'cat.jpg'\n"
        "print(*(name for name in sys.modules if name.startswith('PIL.') and name.endswith('Plugin')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cat.jpg"), str(tmp_path / "good.webp")]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path})
    assert "PIL.WebPImagePlugin" in loaded.stdout.split()
    assert "PIL.EpsImagePlugin" not in loaded.stdout.split()
    assert not (tmp_path / "calls").exists()


def test_images_are_opened_in_one_place() -> None:
    package = Path(lensmith.__file__).parent
    opens = {
        str(file.relative_to(package))
        for file in (*package.rglob("*.py"), *package.rglob("*.j2"))
        if "Image.open(" in file.read_text(encoding="utf-8")
    }
    assert opens == {"imaging/formats.py", "exporting/templates/formats/edge_classify.py.j2"}
    assert "formats=FORMATS" in (package / "exporting/templates/formats/edge_classify.py.j2").read_text()


@pytest.mark.parametrize("key", PILLOW_SAVES)
def test_errors_about_damaged_files_have_no_words_of_the_decoder(key: str) -> None:
    whole = encoded(photo().resize((200, 150)), PILLOW_SAVES[key])
    arrived = set()
    for share in (0.1, 0.3, 0.6, 0.9):
        try:
            decode(whole[: int(len(whole) * share)])
        except ImageError as error:
            arrived.add(error.arrived)
    assert arrived == {f"It cannot be decoded (the {FORMATS[key].name} is damaged, truncated, or of a rare kind)."}


def test_a_picture_that_pillow_itself_finds_too_large_is_refused_in_our_words() -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    bomb = b"\x89PNG\r\n\x1a\n" + chunks
    with pytest.raises(ImageError, match=r"at most 100,000,000 pixels.* 1,600,000,000") as caught:
        decode(bomb)
    assert "bomb" not in str(caught.value)


def test_a_preview_in_front_of_a_raw_picture_is_not_taken_for_it() -> None:
    raw = io.BytesIO()
    small().save(raw, "TIFF", tiffinfo={254: 1})
    with pytest.raises(ImageError, match="camera raw"):
        decode(raw.getvalue())


# JPEG: bytes behind the end


TAILS = {
    "a video": b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(3_000_000),
    "raw data": b"BRCM" + np.random.default_rng(2).bytes(8_000_000),
    "scans of another picture": b"\xff\xda\0\x02" * 5000,
    "another picture": encoded(photo(), "JPEG", progressive=True) * 30,
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_something_behind_its_end_is_the_same_picture(tail: str, progressive: bool) -> None:
    stored = encoded(photo(), "JPEG", progressive=progressive)
    for shortest_px in (None, 100):
        whole = np.asarray(decode(stored + TAILS[tail], shortest_px))
        assert np.array_equal(whole, np.asarray(decode(stored, shortest_px)))


def test_thumbnails_and_other_segments_hold_no_scans_of_the_picture() -> None:
    stored = encoded(photo(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 60_002) + b"Exif\0\0" + b"\xff\xda\0\x02\xff\xd9" * 9999
    assert len(segment) == 60_004
    assert count_scans(stored[:2] + 3 * segment + stored[2:], 100) == 1
    assert decode(stored[:2] + 3 * segment + stored[2:]).size == photo().size


@pytest.mark.parametrize(
    "disguise", [b"", b"\xff\x02\xff\xff", b"\xff\xd0", b"\xff\xff\xff", b"\xff\xfe\0\x02", b"junk"]
)
def test_scans_count_however_they_are_hidden(disguise: bytes) -> None:
    progressive = encoded(photo().resize((64, 48)), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    bomb = progressive[:-2] + 300 * (disguise + last) + b"\xff\xd9"
    assert count_scans(bomb, 100) > 100
    with pytest.raises(ImageError, match="at most 100 scans"):
        decode(bomb)


# PNG: what is not its pixels


def texts(bytes_: int) -> dict[str, bytes]:
    packed = zlib.compress(bytes(bytes_))
    return {
        "zTXt": chunk(b"zTXt", b"Comment\0\0" + packed),
        "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + packed),
        "iCCP": chunk(b"iCCP", b"profile\0\0" + packed),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
    }


@pytest.mark.parametrize("kind", texts(1))
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_large_text_or_profile_of_a_png_does_not_cost_the_picture(kind: str, at_the_end: bool) -> None:
    stored = encoded(small().convert("RGBA"))
    heavy = with_chunk(stored, texts(3_000_000)[kind], at_the_end)
    assert np.array_equal(np.asarray(decode(heavy)), np.asarray(decode(stored)))


def test_orientation_and_transparency_outlive_a_large_text(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    for options in ({"exif": exif}, {"pnginfo": info}):
        stored = encoded(small(), transparency=small().getpixel((0, 0)), **options)
        heavy = with_chunk(stored, texts(5_000_000)["zTXt"])
        found = decode(heavy)
        assert found.size == (40, 60)
        assert np.array_equal(np.asarray(found), np.asarray(decode(stored)))
        (tmp_path / "heavy.png").write_bytes(heavy)
        assert decoded_size(tmp_path / "heavy.png") == (40, 60)


def test_many_texts_that_are_too_much_together_do_not_cost_it_either() -> None:
    stored = encoded(small())
    heavy = with_chunk(stored, 80 * texts(900_000)["zTXt"])
    assert np.array_equal(np.asarray(decode(heavy)), np.asarray(small()))


def test_a_damaged_ancillary_chunk_costs_nothing_and_a_damaged_critical_one_the_picture() -> None:
    stored = encoded(small())
    assert np.array_equal(
        np.asarray(decode(with_chunk(stored, chunk(b"tIME", bytes(7))[:-1] + b"x"))), np.asarray(small())
    )
    assert without_metadata(with_chunk(stored, texts(9)["zTXt"])) == stored
    place = stored.index(b"IDAT") + 20
    with pytest.raises(ImageError):
        decode(stored[:place] + bytes([stored[place] ^ 255]) + stored[place + 1 :])


def test_names_say_what_can_be_read() -> None:
    assert names(["jpeg", "jp2"]) == "JPEG, JPEG 2000"
    assert set(available()) >= set(PILLOW_SAVES)
    assert ("heic" in available()) == is_available(FORMATS["heic"])
