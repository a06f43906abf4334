"""Image formats: what a file is by its content, whatever its name says, and the one decoder that may read it.

Pillow would try every decoder that it has, among them one that starts Ghostscript. Here a file is opened by the decoder
of its own format or not at all, and all errors name the format in our words.
"""

import importlib.util
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image

from lensmith.errors import ImageError
from lensmith.imaging import tiff
from lensmith.imaging.crops import picture_of

HEAD_BYTES = 132
"""Bytes from a file's beginning that tell its format."""

HEIC_EXTRA = "lensmith[heic]"
"""The extra of lensmith that brings the decoder of HEIC."""


@dataclass(frozen=True)
class ImageFormat:
    """A file format that is read.

    Attributes:
        key: name in settings and bundles.
        name: name in messages.
        suffixes: endings of file names, in lower case; the first one is the usual one.
        decoder: Pillow's name of its decoder.
        module: module with that decoder, imported when a file needs it.
        mime: content type, as browsers name it.
    """

    key: str
    name: str
    suffixes: tuple[str, ...]
    decoder: str
    module: str
    mime: str


FORMATS: Mapping[str, ImageFormat] = {
    each.key: each
    for each in (
        ImageFormat("jpeg", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG", "PIL.JpegImagePlugin", "image/jpeg"),
        ImageFormat("png", "PNG", (".png",), "PNG", "PIL.PngImagePlugin", "image/png"),
        ImageFormat("webp", "WebP", (".webp",), "WEBP", "PIL.WebPImagePlugin", "image/webp"),
        ImageFormat("bmp", "BMP", (".bmp",), "BMP", "PIL.BmpImagePlugin", "image/bmp"),
        ImageFormat("tiff", "TIFF", (".tif", ".tiff"), "TIFF", "PIL.TiffImagePlugin", "image/tiff"),
        ImageFormat("gif", "GIF", (".gif",), "GIF", "PIL.GifImagePlugin", "image/gif"),
        ImageFormat("avif", "AVIF", (".avif",), "AVIF", "PIL.AvifImagePlugin", "image/avif"),
        ImageFormat("heic", "HEIC", (".heic", ".heif", ".hif"), "HEIF", "pillow_heif", "image/heic"),
        ImageFormat("jp2", "JPEG 2000", (".jp2", ".j2k"), "JPEG2000", "PIL.Jpeg2KImagePlugin", "image/jp2"),
        ImageFormat(
            "ppm",
            "PPM",
            (".ppm", ".pgm", ".pbm", ".pnm"),
            "PPM",
            "PIL.PpmImagePlugin",
            "image/x-portable-anymap",
        ),
    )
}
"""The formats that are read, by key. Of an animation, and of a file with several pictures, the first one is read."""

SUFFIXES: Mapping[str, ImageFormat] = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}
"""File name suffixes of images, in lower case."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    *((mark, "tiff") for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
_PPM = re.compile(rb"P[1-6fF][\s#]")
_BRANDS = {
    b"avif": "avif", b"avis": "avif",
    b"heic": "heic", b"heix": "heic", b"heim": "heic", b"heis": "heic", b"hevc": "heic", b"hevx": "heic",
    b"mif1": "heic", b"msf1": "heic",
}  # fmt: skip
"""Brands of ISO media files. `mif1` and `msf1` are shared: a file that also has an AVIF brand is AVIF."""

_OTHERS = (
    (b"%!PS", "PostScript"),
    (b"\x04%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"SIMPLE  =", "FITS"),
    (b"\x89HDF", "HDF5"),
    (b"GRIB", "GRIB"),
    (b"BUFR", "BUFR"),
    *((mark, "a camera raw file") for mark in (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb")),
    (b"\x93NUMPY", "an array (NumPy)"),
    (b"SQLite format 3", "a database"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "a texture (DDS)"),
    (b"data:image/", "Base64 text, not the image itself"),
    (b"/9j/", "Base64 text, not the image itself"),
    (b"iVBORw0K", "Base64 text, not the image itself"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)
"""What else is often found under an image's name. It is named in errors, and never opened."""

OTHER_SUFFIXES: Mapping[str, str] = {
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    **dict.fromkeys((".eps", ".ps", ".ai"), "PostScript"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "a camera raw file"),
    ".jxl": "JPEG XL",
    ".svg": "SVG",
    ".tga": "Targa",
    ".ico": "an icon",
    ".dcm": "DICOM",
}
"""File name suffixes of pictures that are not read."""

_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706


def identify(encoded: bytes) -> ImageFormat | None:
    """The format of an encoded image, from its first HEAD_BYTES bytes; None for anything else."""
    for mark, key in _MAGIC:
        if encoded.startswith(mark):
            return FORMATS[key]
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return FORMATS["webp"]
    if encoded[4:8] == b"ftyp":
        return FORMATS.get(_brand(encoded))
    return FORMATS["ppm"] if _PPM.match(encoded) else None


def describe(encoded: bytes) -> str:
    """What the bytes are, from their beginning, as a sentence's end: `it is PostScript`."""
    if form := identify(encoded):
        return f"it is {form.name}"
    if encoded[4:8] == b"ftyp":
        return "it is a camera raw file (CR3)" if encoded[8:12] == b"crx " else "it is a video"
    if encoded[128:132] == b"DICM":
        return "it is DICOM"
    if encoded[:4] == b"RIFF":
        return "it is a video or a sound"
    start = encoded[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in _OTHERS:
        if encoded.startswith(mark) or start.startswith(mark.lower()):
            return f"it is {name}"
    return "its first bytes are those of no image format" if encoded else "it is empty"


@cache
def is_available(form: ImageFormat) -> bool:
    """Whether the format's decoder is installed; that of HEIC comes with an extra."""
    return importlib.util.find_spec(form.module) is not None


def require_format(encoded: bytes) -> ImageFormat:
    """The format of an encoded image that can be read here.

    Raises:
        ImageError: it is something else, or of a format whose decoder is not installed.
    """
    form = identify(encoded)
    if form is None or (encoded[8:10] == b"CR" and form.key == "tiff"):
        what = "it is a camera raw file (CR2)" if form else describe(encoded)
        raise ImageError(
            f"An image was expected ({names(available())}).",
            f"It cannot be decoded ({what}).",
            "Replace or remove it, or save it as JPEG.",
        )
    if not is_available(form):
        raise ImageError(
            f"An image was expected whose decoder is installed ({names(available())}).",
            f"It is {form.name}: install {HEIC_EXTRA}.",
            f"Run pip install '{HEIC_EXTRA}', or save the picture as JPEG.",
        )
    return form


def available() -> list[str]:
    """Keys of the formats that can be read here."""
    return [key for key, form in FORMATS.items() if is_available(form)]


def format_of(file: Path) -> ImageFormat:
    """The format of a file, or of the one that a crop is of, from its first bytes.

    Raises:
        ImageError: no image, or one of a format that cannot be read here.
        OSError: the file cannot be read.
    """
    with picture_of(file).open("rb") as stream:
        return require_format(stream.read(HEAD_BYTES))


def names(keys: Iterable[str]) -> str:
    """Names of formats, as in messages: `JPEG, PNG`."""
    return ", ".join(FORMATS[key].name if key in FORMATS else key for key in keys)


def open_image(source: bytes | Path) -> Image.Image:
    """Open an image by the decoder of its format and no other; its pixels are decoded later, by `load`.

    Everything that is read from a picture is opened here, so that no other decoder ever runs.

    Raises:
        ImageError: no image, or one of a format that cannot be read here.
        OSError: the file cannot be read.
        Exception: the decoder's own errors; they differ from format to format.
    """
    form = format_of(source) if isinstance(source, Path) else require_format(source)
    module = import_module(form.module)
    if form.key == "heic" and form.decoder not in Image.OPEN:
        module.register_heif_opener(thumbnails=False)
    if form.key == "tiff":
        tiff.add_layouts(module)
    picture = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=[form.decoder])
    tags = getattr(picture, "tag_v2", {}) if form.key == "tiff" else {}
    if _DNG_VERSION in tags or int(tags.get(_NEW_SUBFILE_TYPE, 0)) & 1:
        picture.close()
        raise ImageError(
            "A TIFF whose first picture is the whole picture was expected.",
            "It is a camera raw file: its first picture is a small preview.",
            "Develop it, and save it as JPEG.",
        )
    return picture


def _brand(encoded: bytes) -> str:
    """Key of the format of an ISO media file, by its brands; empty for videos and others."""
    end = min(int.from_bytes(encoded[:4], "big"), HEAD_BYTES)
    brands = [encoded[8:12], *(encoded[place : place + 4] for place in range(16, end, 4))]
    found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if encoded[8:12] not in _BRANDS:  # a video whose compatible brands name a still picture, as of a cover
        return ""
    return "avif" if "avif" in found else "heic"
