"""Content hashes find an image again under any name, and after rewriting without loss; nothing else is taken for it."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures.pictures import COLOURS, coloured_picture, encoded
from lensmith.bundle.image_hashes import FILE, ImageHashes, content_hashes
from lensmith.errors import BundleError


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def photo(size: tuple[int, int] = (60, 40), seed: int = 0) -> Image.Image:
    return coloured_picture(COLOURS["red"], seed=seed).resize(size)


def with_comment(jpeg: bytes, comment: bytes = b"another camera") -> bytes:
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def test_the_hash_of_a_file_is_the_beginning_of_its_sha256() -> None:
    assert content_hashes(b"abc") == (int.from_bytes(bytes.fromhex("ba7816bf8f01cfea"), "little"), None)


@pytest.mark.parametrize(
    "size",
    [(60, 40), (1600, 1200)],
    ids=["small", "decoded at a reduced scale"],
)
def test_a_jpeg_with_other_metadata_is_the_same_image(size: tuple[int, int]) -> None:
    jpeg = saved(photo(size), "JPEG")
    (file, pixels), (other_file, other_pixels) = content_hashes(jpeg), content_hashes(with_comment(jpeg))
    assert file != other_file
    assert pixels == other_pixels is not None


@pytest.mark.parametrize(
    "again",
    [
        lambda picture: saved(picture, "PNG", compress_level=1),
        lambda picture: saved(picture, "BMP"),
        lambda picture: saved(picture, "TIFF"),
        lambda picture: saved(picture, "WEBP", lossless=True),
        lambda picture: saved(picture.convert("RGBA"), "PNG"),
    ],
    ids=["PNG", "BMP", "TIFF", "WebP", "opaque alpha"],
)
def test_a_file_saved_again_without_loss_is_the_same_image(again: object) -> None:
    assert callable(again)
    jpeg = saved(photo(), "JPEG")
    rewritten = again(Image.open(io.BytesIO(jpeg)))
    assert content_hashes(rewritten)[1] == content_hashes(jpeg)[1] is not None


def test_pictures_that_differ_are_different_images() -> None:
    upright = photo()
    changed = upright.copy()
    changed.putpixel((7, 5), (0, 0, 0))
    pictures = [upright, changed, upright.rotate(90, expand=True), upright.rotate(180), photo(seed=1)]
    pictures += [Image.new("RGB", (4, 6)), Image.new("RGB", (6, 4))]  # as many zeros in another shape
    assert len({content_hashes(encoded(picture))[1] for picture in pictures}) == len(pictures)


def test_deep_pictures_are_compared_by_their_bytes_alone() -> None:
    """Their values beyond 8 bits are lost in conversions: two of them must not become the same image."""
    values = np.arange(24, dtype=np.uint16).reshape(4, 6)
    first, second = (saved(Image.fromarray(array), "PNG") for array in (values, values[::-1].copy()))
    assert content_hashes(first)[1] is content_hashes(second)[1] is None
    floats = Image.fromarray(np.full((4, 6), 0.5, np.float32))
    assert content_hashes(saved(floats, "TIFF"))[1] is None
    assert content_hashes(png_of_16_bit_rgb(np.arange(72, dtype=">u2").reshape(4, 6, 3)))[1] is None


def png_of_16_bit_rgb(values: np.ndarray[Any, Any]) -> bytes:
    """A PNG of 16-bit colour, uint16 (H, W, 3), which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    whole = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def write(folder: Path, count: int, start: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for seed in range(start, start + count):
        photo(seed=seed).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


def test_hashes_are_written_and_read_and_take_16_bytes_an_image(tmp_path: Path) -> None:
    train, val = write(tmp_path / "train", 20), write(tmp_path / "val", 5, start=100)
    made = ImageHashes.of([*train, train[0]], val)
    assert made.complete
    assert (made.entry.train, made.entry.val) == (20, 5)
    made.save(tmp_path / FILE)
    read = ImageHashes.read(tmp_path / FILE)
    for file in (*train, *val):
        assert read.use_of(content_hashes(file.read_bytes())) == file.parent.name
    assert read.use_of(content_hashes(encoded(photo(seed=50)))) is None
    overhead = (tmp_path / FILE).stat().st_size - 16 * 25
    assert 0 < overhead < 2000
    for array in (read.train_files, read.train_pixels, read.val_files, read.val_pixels):
        assert array.dtype == np.uint64
        assert (np.diff(array) > 0).all()  # as unsigned differences are


def test_an_image_that_was_learnt_from_and_chosen_on_counts_as_learnt_from(tmp_path: Path) -> None:
    (file,) = write(tmp_path / "train", 1)
    assert ImageHashes.of([file], [file]).use_of(content_hashes(file.read_bytes())) == "train"


def test_several_models_know_what_each_of_them_knows(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", 3), write(tmp_path / "second", 3, start=2)
    both = ImageHashes.joined([ImageHashes.of(first, []), ImageHashes.of([], second)])
    assert (both.entry.train, both.entry.val) == (3, 3)
    assert [both.use_of(content_hashes(file.read_bytes())) for file in second] == ["train", "val", "val"]


def test_files_that_are_gone_make_hashes_incomplete(tmp_path: Path) -> None:
    (file,) = write(tmp_path / "train", 1)
    found = ImageHashes.of([file, tmp_path / "gone.png"], [])
    assert (found.complete, found.entry.train) == (False, 1)
    assert not ImageHashes.joined([found, ImageHashes.of([file], [])]).complete


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BundleError, match=FILE):
        ImageHashes.read(tmp_path / FILE)


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    made = ImageHashes.of(write(tmp_path / "train", 2), [])
    arrays = {name: getattr(made, name) for name in ("train_files", "train_pixels", "val_files", "val_pixels")}
    np.savez(tmp_path / FILE, **arrays)
    assert ImageHashes.read(tmp_path / FILE).entry == made.entry  # as earlier versions wrote it
    np.savez(tmp_path / FILE, **{**arrays, "train_files": np.zeros(2)})
    with pytest.raises(BundleError, match="uint64"):
        ImageHashes.read(tmp_path / FILE)
